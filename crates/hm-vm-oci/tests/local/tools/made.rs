//! What other tools make.

use std::fs;
use std::path::Path;

use hm_vm_oci::Resolved;
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;

use super::super::image::{gzip, read_path, refusal};
use super::engine::Engine;
use super::podman::Containers;
use super::process::{limited, run, skopeo, write_context};

/// Whether it is the image of the tests' build.
fn check(image: &Resolved) {
    let config = image.config.config.clone().unwrap();
    assert!(config.env.unwrap().contains(&"A=b".to_owned()));
    assert_eq!(config.user.as_deref(), Some("5:6"));
    assert_eq!(config.working_dir.as_deref(), Some("/work"));
    assert_eq!(config.entrypoint.unwrap(), ["/bin/tool"]);
    assert!(
        image
            .config
            .history
            .iter()
            .any(|step| step.empty_layer == Some(true))
    );
}

#[test]
fn docker_builds_and_saves() {
    let root = TestRoot::new().unwrap();
    let engine = require!(Engine::start(&root));
    let id = engine.build(&root.join("context"), "hm/test:1");
    let path = root.join("image.tar");
    engine.save(&path, &["hm/test:1"]);
    let image = read_path(&path, None);
    check(&image);
    assert_eq!(image.config_digest.to_string(), id);
    assert_eq!(
        image.config.rootfs.diff_ids[1], image.config.rootfs.diff_ids[3],
        "the layer that is a link"
    );
    assert_eq!(read_path(&path, Some("hm/test:1")), image);

    let packed = root.join("image.tar.gz");
    fs::write(&packed, gzip(&fs::read(&path).unwrap())).unwrap();
    assert_eq!(read_path(&packed, None), image);

    // An archive of several, one of them from `docker import`: a single layer, and no command.
    let rootfs = root.join("rootfs.tar");
    fs::write(&rootfs, super::super::image::layer("imported")).unwrap();
    let imported = run(engine
        .docker()
        .arg("import")
        .arg(&rootfs)
        .arg("hm/imported"));
    engine.save(&path, &["hm/test:1", "hm/imported"]);
    assert!(refusal(&path, None).contains("name one of"));
    assert_eq!(
        read_path(&path, Some("hm/test:1"))
            .config_digest
            .to_string(),
        id
    );
    let found = read_path(&path, Some("hm/imported"));
    assert_eq!(
        (found.config_digest.to_string(), found.manifest.layers.len()),
        (imported, 1)
    );
}

#[test]
fn podman_saves_and_buildah_pushes() {
    let root = TestRoot::new().unwrap();
    let containers = require!(Containers::new(&root));
    let context = root.join("context");
    write_context(&context);
    run(containers
        .buildah()
        .args(["bud", "-q", "--layers", "-t", "hm/test:1"])
        .arg(&context));
    let mut diff_ids = Vec::new();
    for form in ["docker-archive", "oci-archive", "oci-dir"] {
        let path = root.join(form);
        let mut save = containers.podman();
        run(save
            .args(["save", "-q", "--format", form, "-o"])
            .arg(&path)
            .arg("localhost/hm/test:1"));
        let image = read_path(&path, None);
        check(&image);
        assert_eq!(read_path(&path, Some("localhost/hm/test:1")), image);
        diff_ids.push(image.config.rootfs.diff_ids);
    }
    for transport in ["oci", "oci-archive", "docker-archive"] {
        let path = root.join(&format!("pushed-{transport}"));
        let to = format!("{transport}:{}:hm/pushed:2", path.display());
        run(containers
            .buildah()
            .args(["push", "-q", "localhost/hm/test:1", &to]));
        let image = read_path(&path, Some("hm/pushed:2"));
        check(&image);
        diff_ids.push(image.config.rootfs.diff_ids);
    }
    assert!(diff_ids.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn skopeo_copies() {
    let root = TestRoot::new().unwrap();
    let image = super::super::image::Image::new(&["a", "b", "a"]);
    let from = root.join("from");
    image.write(&hm_vm_oci::LayoutWriter::new(&from, Some("x:1")).unwrap());
    for (to, extra) in [
        ("oci", &[][..]),
        ("oci-archive", &[]),
        ("docker-archive", &[]),
        (
            "oci",
            &[
                "--dest-compress-format",
                "zstd",
                "--dest-oci-accept-uncompressed-layers=false",
                "--dest-compress",
            ],
        ),
    ] {
        let path = root.join(&format!("{to}-{}", extra.len()));
        copy(
            &from,
            &format!("{to}:{}:hm/copied:2", path.display()),
            extra,
        );
        let found = read_path(&path, Some("hm/copied:2"));
        assert_eq!(found.config.rootfs, image_diff_ids(&image));
    }

    fn copy(from: &Path, to: &str, extra: &[&str]) {
        let mut command = skopeo().unwrap_or_else(|skip| panic!("{skip}"));
        run(command
            .args(["copy", "-q"])
            .args(extra)
            .arg(format!("oci:{}:x:1", from.display()))
            .arg(to));
    }

    fn image_diff_ids(image: &super::super::image::Image) -> hm_vm_oci::RootFs {
        hm_vm_oci::ImageConfig::parse(&image.blobs[0].1)
            .unwrap()
            .rootfs
    }
}

#[test]
fn umoci_makes_layouts() {
    let root = TestRoot::new().unwrap();
    let mut init = require!(limited("umoci"));
    let layout = root.join("layout");
    run(init.args(["init", "--layout"]).arg(&layout));
    let tagged = format!("{}:first", layout.display());
    let umoci = || limited("umoci").unwrap();
    run(umoci().args(["new", "--image", &tagged]));
    assert_eq!(read_path(&layout, Some("first")).manifest.layers.len(), 0);
    let file = root.join("file");
    fs::write(&file, "content").unwrap();
    for name in ["/a", "/b"] {
        run(umoci()
            .args(["insert", "--image", &tagged])
            .arg(&file)
            .arg(name));
    }
    run(umoci().args([
        "config",
        "--image",
        &tagged,
        "--tag",
        "second",
        "--config.workingdir",
        "/work",
        "--config.env",
        "A=b",
    ]));
    let first = read_path(&layout, Some("first"));
    assert_eq!(
        (
            first.manifest.layers.len(),
            first.config.config.unwrap_or_default().working_dir
        ),
        (2, None)
    );
    let second = read_path(&layout, Some("second"));
    let config = second.config.config.unwrap();
    assert_eq!(
        (config.working_dir.as_deref(), config.env.unwrap()),
        (Some("/work"), vec!["A=b".to_owned()])
    );
    assert!(refusal(&layout, None).contains("first, second"));
}
