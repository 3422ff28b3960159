//! Layouts in directories.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::symlink;

use hm_vm_core::Progress;
use hm_vm_oci::{
    Descriptor, Destination, Digest, LayoutWriter, OciError, Platform, Verified, media, open_local,
};
use hm_vm_testkit::roots::TestRoot;

use super::image::{Image, put, read_path, refusal};

fn blob_file(root: &TestRoot, digest: &Digest) -> std::path::PathBuf {
    root.join("layout/blobs/sha256").join(digest.hex())
}

#[test]
fn what_is_written_is_read() {
    let root = TestRoot::new().unwrap();
    let path = root.join("layout");
    let image = Image::new(&["a", "b", "a"]);
    image.write(&LayoutWriter::new(&path, Some("x:1")).unwrap());
    let found = read_path(&path, None);
    assert_eq!(found.config_digest, image.id());
    assert_eq!(found.manifest, image.manifest);
    assert_eq!(read_path(&path, Some("x:1")), found);
    assert_eq!(read_path(&path, Some("docker.io/library/x:1")), found);
    let digest = found.manifest_digest.to_string();
    assert_eq!(read_path(&path, Some(&digest)), found);
    let leftovers = fs::read_dir(path.join("blobs/sha256")).unwrap();
    assert_eq!(leftovers.count(), 4, "configuration, manifest, two layers");
}

#[test]
fn several_images_are_told_apart_by_name() {
    let root = TestRoot::new().unwrap();
    let path = root.join("layout");
    let [one, two, three] = ["1", "2", "3"].map(|content| Image::new(&[content]));
    one.write(&LayoutWriter::new(&path, Some("one")).unwrap());
    two.write(&LayoutWriter::new(&path, Some("two")).unwrap());
    assert_eq!(read_path(&path, Some("one")).config_digest, one.id());
    assert_eq!(read_path(&path, Some("two")).config_digest, two.id());
    let error = refusal(&path, None);
    assert!(error.ends_with("name one of one, two"), "{error}");
    let error = refusal(&path, Some("three"));
    assert!(
        error.contains("image three does not exist") && error.ends_with("contains one, two"),
        "{error}"
    );
    // A second image of the name replaces the first.
    three.write(&LayoutWriter::new(&path, Some("one")).unwrap());
    assert_eq!(read_path(&path, Some("one")).config_digest, three.id());
    assert_eq!(read_path(&path, Some("two")).config_digest, two.id());
}

#[test]
fn what_others_say_in_an_index_stays() {
    let root = TestRoot::new().unwrap();
    let path = root.join("layout");
    let image = Image::new(&["a"]);
    image.write(&LayoutWriter::new(&path, Some("mine")).unwrap());
    let index = path.join("index.json");
    let entry = format!(
        r#"{{"mediaType":"{}","digest":"{}","size":3,"artifactType":"x/y","annotations":{{"a":"b"}}}}"#,
        media::MANIFEST,
        Digest::of(b"not here")
    );
    let text = format!(r#"{{"schemaVersion":2,"subject":{{"k":1}},"manifests":[{entry}]}}"#);
    fs::write(&index, text).unwrap();
    image.write(&LayoutWriter::new(&path, Some("mine")).unwrap());
    let text = fs::read_to_string(&index).unwrap();
    for kept in [
        "\"subject\"",
        "\"artifactType\":\"x/y\"",
        "\"a\":\"b\"",
        "mine",
    ] {
        assert!(text.contains(kept), "{text}");
    }
    assert_eq!(read_path(&path, Some("mine")).config_digest, image.id());
}

#[test]
fn writers_at_once_lose_nothing() {
    let root = TestRoot::new().unwrap();
    let path = root.join("layout");
    let names: Vec<String> = (0..16).map(|number| format!("image-{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let path = &path;
            scope.spawn(move || {
                let writer = LayoutWriter::new(path, Some(name)).unwrap();
                Image::new(&["shared", name]).write(&writer);
            });
        }
    });
    for name in &names {
        let expected = Image::new(&["shared", name]).id();
        assert_eq!(read_path(&path, Some(name)).config_digest, expected);
    }
}

#[test]
fn several_platforms_of_one_name_are_one_image() {
    let root = TestRoot::new().unwrap();
    let path = root.join("layout");
    let image = Image::new(&["a"]);
    let writer = LayoutWriter::new(&path, None).unwrap();
    image.write(&writer);
    let raw = image.manifest.to_raw();
    let mut here = Descriptor::of(media::MANIFEST, &raw.bytes);
    here.platform = Some(Platform::here());
    let mut other = Descriptor::of(media::MANIFEST, b"other");
    other.platform = Some("linux/mips64le".parse().unwrap());
    let entries = [other, here].map(|entry| serde_json::to_string(&entry).unwrap());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entries.join(",")
    );
    fs::write(path.join("index.json"), index).unwrap();
    assert_eq!(read_path(&path, None).config_digest, image.id());
}

#[test]
fn links_and_pipes_are_not_read() {
    let root = TestRoot::new().unwrap();
    let path = root.join("layout");
    let image = Image::new(&["a"]);
    image.write(&LayoutWriter::new(&path, None).unwrap());
    let source = open_local(&path, None).unwrap();
    let layer = &image.manifest.layers[0];
    let file = blob_file(&root, &layer.digest);

    fs::rename(&file, root.join("elsewhere")).unwrap();
    assert!(matches!(source.open(layer), Err(OciError::NotFound { .. })));
    symlink(root.join("elsewhere"), &file).unwrap();
    assert!(source.open(layer).is_err());
    fs::remove_file(&file).unwrap();
    // Nobody writes to it: opening it the ordinary way would never end.
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let error = source.open(layer).err().unwrap().to_string();
    assert!(error.contains("no regular file"), "{error}");
    fs::remove_file(&file).unwrap();

    fs::rename(path.join("blobs"), root.join("blobs")).unwrap();
    symlink(root.join("blobs"), path.join("blobs")).unwrap();
    assert!(source.root().is_err());
}

#[test]
fn content_that_lies_is_found_out() {
    let root = TestRoot::new().unwrap();
    let path = root.join("layout");
    let image = Image::new(&["a"]);
    image.write(&LayoutWriter::new(&path, None).unwrap());
    let source = open_local(&path, None).unwrap();
    let layer = &image.manifest.layers[0];
    let file = blob_file(&root, &layer.digest);
    let mut bytes = fs::read(&file).unwrap();
    bytes[3] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let mut input = Verified::new(source.open(layer).unwrap(), layer);
    assert!(input.drain().unwrap_err().to_string().contains("digest"));
    fs::write(&file, &bytes[1..]).unwrap();
    assert!(matches!(source.open(layer), Err(OciError::Mismatch { .. })));

    let manifest = blob_file(&root, &image.manifest.to_raw().digest);
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[1] ^= 1;
    fs::write(&manifest, &bytes).unwrap();
    assert!(matches!(source.root(), Err(OciError::Mismatch { .. })));
}

#[test]
fn an_index_of_terabytes_is_not_read() {
    let root = TestRoot::new().unwrap();
    let path = root.join("layout");
    let image = Image::new(&["a"]);
    image.write(&LayoutWriter::new(&path, None).unwrap());
    let index = fs::OpenOptions::new()
        .write(true)
        .open(path.join("index.json"))
        .unwrap();
    index.set_len(1 << 40).unwrap();
    assert!(refusal(&path, None).contains("more than"));
    let writer = LayoutWriter::new(&path, None).unwrap();
    assert!(writer.put_manifest(&image.manifest.to_raw()).is_err());
}

#[test]
fn a_failed_blob_leaves_nothing() {
    let root = TestRoot::new().unwrap();
    let path = root.join("layout");
    let writer = LayoutWriter::new(&path, None).unwrap();
    let blob = Descriptor::of(media::LAYER, b"right");
    let wrong = || Ok(Box::new(&b"wrong"[..]) as Box<dyn Read + Send>);
    let error = writer
        .put_blob(&blob, &wrong, &Progress::new())
        .unwrap_err();
    assert!(matches!(error, OciError::Mismatch { .. }), "{error}");
    let broken = || Err(io::Error::other("no input"));
    assert!(writer.put_blob(&blob, &broken, &Progress::new()).is_err());
    assert!(!writer.has(&blob).unwrap());
    assert_eq!(fs::read_dir(path.join("blobs/sha256")).unwrap().count(), 0);
    put(&writer, &blob, b"right");
    assert!(writer.has(&blob).unwrap());
}

#[test]
fn other_directories_are_no_layouts() {
    let root = TestRoot::new().unwrap();
    let path = root.join("rootfs");
    fs::create_dir_all(path.join("etc")).unwrap();
    let error = open_local(&path, None).unwrap_err();
    assert!(matches!(error, OciError::NoImage { .. }), "{error}");
    let error = LayoutWriter::new(&path, None).unwrap_err();
    assert!(matches!(error, OciError::Invalid { .. }), "{error}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    let error = open_local(&root.join("nowhere"), None).unwrap_err();
    assert!(matches!(error, OciError::Io { .. }), "{error}");
}
