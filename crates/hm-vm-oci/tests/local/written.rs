//! Archives that are written.

use std::fs;
use std::io::Read;

use hm_vm_core::Progress;
use hm_vm_oci::{ArchiveWriter, Descriptor, Destination, OciError, media};
use hm_vm_testkit::roots::TestRoot;

use super::image::{Image, gzip, layer, put, read_path};

#[test]
fn the_same_parts_give_the_same_bytes_in_any_order() {
    let root = TestRoot::new().unwrap();
    let image = Image::new(&["a", "b", "c"]);
    let path = root.join("image.tar");
    image.write(&ArchiveWriter::new(&path, Some("x:1")).unwrap());
    let first = fs::read(&path).unwrap();
    let mut other = image.clone();
    other.blobs.reverse();
    let writer = ArchiveWriter::new(&path, Some("x:1")).unwrap();
    // A part that fails on the way leaves no trace.
    let (blob, bytes) = &other.blobs[0];
    let cut = || Ok(Box::new(std::io::Cursor::new(bytes[..7].to_vec())) as Box<dyn Read + Send>);
    assert!(writer.put_blob(blob, &cut, &Progress::new()).is_err());
    assert!(!writer.has(blob).unwrap());
    other.write(&writer);
    assert_eq!(fs::read(&path).unwrap(), first);
    assert_eq!(read_path(&path, Some("x:1")).manifest, image.manifest);
}

#[test]
fn parts_come_from_several_threads() {
    let root = TestRoot::new().unwrap();
    let contents: Vec<String> = (0..24).map(|number| "x".repeat(number * 30_000)).collect();
    let layers: Vec<Vec<u8>> = contents.iter().map(|content| layer(content)).collect();
    let image = Image::of_layers(&layers, |bytes| (media::LAYER_GZIP, gzip(bytes)));
    let path = root.join("image.tar");
    let writer = ArchiveWriter::new(&path, None).unwrap();
    std::thread::scope(|scope| {
        for (blob, bytes) in &image.blobs {
            let writer = &writer;
            scope.spawn(move || put(writer, blob, bytes));
        }
    });
    writer.put_manifest(&image.manifest.to_raw()).unwrap();
    writer.finish().unwrap();
    writer.finish().unwrap();
    assert_eq!(read_path(&path, None).manifest, image.manifest);
}

#[test]
fn nothing_is_there_before_the_end() {
    let root = TestRoot::new().unwrap();
    let path = root.join("image.tar");
    fs::write(&path, "old").unwrap();
    let writer = ArchiveWriter::new(&path, None).unwrap();
    put(&writer, &Descriptor::of(media::LAYER, b"part"), b"part");
    assert!(matches!(writer.finish(), Err(OciError::Invalid { .. })));
    drop(writer);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    let error = ArchiveWriter::new(&root.join("nowhere/image.tar"), None).unwrap_err();
    assert!(matches!(error, OciError::Io { .. }), "{error}");
}

#[test]
fn artifacts_are_no_images_for_docker() {
    let root = TestRoot::new().unwrap();
    let mut artifact = Image::new(&["a"]);
    artifact.manifest.config.media_type = "application/vnd.example+json".to_owned();
    let path = root.join("artifact.tar");
    artifact.write(&ArchiveWriter::new(&path, Some("x:1")).unwrap());
    let file = fs::File::open(&path).unwrap();
    let members = hm_vm_oci::Members::scan(file, &path).unwrap();
    assert!(members.contains("oci-layout") && !members.contains("manifest.json"));
}
