//! Archives as `docker save` and `podman save` write them, made by hand.

use std::fs;
use std::path::PathBuf;

use hm_vm_oci::{
    ArchiveWriter, Digest, ImageConfig, OciError, Platform, RootFs, media, open_local,
};
use hm_vm_testkit::roots::TestRoot;

use super::image::{Image, archive, gzip, layer, read_path, refusal};

/// A configuration with these layers.
fn config(layers: &[&[u8]]) -> Vec<u8> {
    ImageConfig {
        platform: Platform::here(),
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: layers.iter().map(|bytes| Digest::of(bytes)).collect(),
        },
        ..ImageConfig::default()
    }
    .to_bytes()
}

fn write(root: &TestRoot, files: &[(&str, &[u8])]) -> PathBuf {
    let path = root.join("image.tar");
    fs::write(&path, archive(files)).unwrap();
    path
}

#[test]
fn layers_are_not_read_to_be_described() {
    let root = TestRoot::new().unwrap();
    let (one, two) = (layer("one"), layer("two"));
    let config = config(&[&one, &two, &one]);
    let manifest = br#"[{"Config":"c.json","RepoTags":["a/b:1"],"Layers":["1/layer.tar","2.tar","1/layer.tar"]}]"#;
    let path = write(
        &root,
        &[
            ("1/layer.tar", &one),
            ("2.tar", &two),
            ("c.json", &config),
            ("manifest.json", manifest),
        ],
    );
    let found = read_path(&path, None);
    assert_eq!(found.config_digest, Digest::of(&config));
    assert_eq!(found.manifest.layers[1].digest, Digest::of(&two));
    assert_eq!(found.manifest.layers[0], found.manifest.layers[2]);
    for name in ["a/b:1", "docker.io/a/b:1"] {
        assert_eq!(read_path(&path, Some(name)), found);
    }

    // What lies there is another layer than the configuration names.
    let path = write(
        &root,
        &[
            ("1/layer.tar", &two),
            ("2.tar", &two),
            ("c.json", &config),
            ("manifest.json", manifest),
        ],
    );
    let source = open_local(&path, None).unwrap();
    let layer = &found.manifest.layers[0];
    let read = hm_vm_oci::Verified::new(source.open(layer).unwrap(), layer).drain();
    assert!(read.unwrap_err().to_string().contains("digest"));
}

#[test]
fn layers_that_are_compressed_are_known_by_what_lies_there() {
    let root = TestRoot::new().unwrap();
    let (one, two) = (layer("one"), layer("two"));
    let config = config(&[&one, &two]);
    let (packed, other) = (gzip(&one), zstd::encode_all(&two[..], 0).unwrap());
    let manifest = br#"[{"Config":"sha256:0","RepoTags":null,"Layers":["1.tar.gz","2.tar.gz"]}]"#;
    let path = write(
        &root,
        &[
            ("sha256:0", &config),
            ("1.tar.gz", &packed),
            ("2.tar.gz", &other),
            ("manifest.json", manifest),
        ],
    );
    let layers = read_path(&path, None).manifest.layers;
    assert_eq!(layers[0].digest, Digest::of(&packed));
    assert_eq!(
        (&*layers[0].media_type, &*layers[1].media_type),
        (media::LAYER_GZIP, media::LAYER_ZSTD)
    );
}

#[test]
fn several_images_are_told_apart() {
    let root = TestRoot::new().unwrap();
    let (one, two) = (layer("one"), layer("two"));
    let (first, second) = (config(&[&one]), config(&[&two]));
    let id = Digest::of(&first).hex();
    let manifest = format!(
        r#"[{{"Config":"{id}.json","RepoTags":["x:1","x:latest"],"Layers":["1.tar"]}},
            {{"Config":"two.json","RepoTags":["y:2"],"Layers":["2.tar"]}}]"#
    );
    let first_name = format!("{id}.json");
    let path = write(
        &root,
        &[
            (&first_name, &first),
            ("two.json", &second),
            ("1.tar", &one),
            ("2.tar", &two),
            ("manifest.json", manifest.as_bytes()),
        ],
    );
    for name in ["x", "x:1", &id, &format!("sha256:{id}")] {
        assert_eq!(
            read_path(&path, Some(name)).config_digest,
            Digest::of(&first),
            "{name}"
        );
    }
    assert_eq!(
        read_path(&path, Some("y:2")).config_digest,
        Digest::of(&second)
    );
    assert!(refusal(&path, None).ends_with("name one of x:1, y:2"));
    assert!(refusal(&path, Some("z")).contains("image z does not exist"));
}

#[test]
fn names_of_parts_lead_to_members_only() {
    let root = TestRoot::new().unwrap();
    let one = layer("one");
    let config = config(&[&one]);
    for (part, manifest) in [
        (
            "/etc/passwd",
            r#"[{"Config":"c","Layers":["/etc/passwd"]}]"#,
        ),
        ("../c", r#"[{"Config":"c","Layers":["../c"]}]"#),
        ("/c", r#"[{"Config":"/c","Layers":["1.tar"]}]"#),
        ("none", r#"[{"Config":"none","Layers":["1.tar"]}]"#),
    ] {
        let path = write(
            &root,
            &[
                ("c", &config),
                ("1.tar", &one),
                ("manifest.json", manifest.as_bytes()),
            ],
        );
        let error = open_local(&path, None).unwrap_err();
        assert!(
            matches!(&error, OciError::NotFound { what, .. } if what == part),
            "{error}"
        );
    }
    for (reason, manifest) in [
        (
            "names 1 layers, its manifest.json 2",
            r#"[{"Config":"c","Layers":["1.tar","1.tar"]}]"#,
        ),
        ("no image", "[]"),
        (
            "configuration",
            r#"[{"Config":"1.tar","Layers":["1.tar"]}]"#,
        ),
    ] {
        let path = write(
            &root,
            &[
                ("c", &config),
                ("1.tar", &one),
                ("manifest.json", manifest.as_bytes()),
            ],
        );
        let error = refusal(&path, None);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn what_carries_both_forms_is_read_as_a_layout() {
    let root = TestRoot::new().unwrap();
    let image = Image::new(&["a"]);
    let path = root.join("image.tar");
    image.write(&ArchiveWriter::new(&path, Some("x:1")).unwrap());
    let found = read_path(&path, Some("x:1"));
    assert_eq!(found.manifest_digest, image.manifest.to_raw().digest);
}
