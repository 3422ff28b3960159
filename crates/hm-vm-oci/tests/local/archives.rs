//! What lies where in archives.

use std::fs::{self, File};
use std::io::Read;

use hm_vm_oci::{LocalOptions, Members, OciError, open_local, open_local_with};
use hm_vm_testkit::roots::TestRoot;
use tar::{Builder, EntryType, Header};

use super::image::{Image, archive, gzip, read_path};

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn file(builder: &mut Builder<Vec<u8>>, name: &str, content: &str) {
    let mut header = header(EntryType::Regular, content.len() as u64);
    builder
        .append_data(&mut header, name, content.as_bytes())
        .unwrap();
}

fn link(builder: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str) {
    builder
        .append_link(&mut header(kind, 0), name, target)
        .unwrap();
}

fn scan(bytes: &[u8]) -> Members {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    Members::scan(file, "test.tar".as_ref()).unwrap()
}

fn text(members: &Members, name: &str) -> Option<String> {
    let mut text = String::new();
    members
        .member(name)
        .ok()?
        .0
        .read_to_string(&mut text)
        .unwrap();
    Some(text)
}

#[test]
fn members_are_found_under_every_kind_of_name() {
    let long = format!("{}/file", "d".repeat(150));
    let mut builder = Builder::new(Vec::new());
    file(&mut builder, "./plain", "1");
    file(&mut builder, "a/b/c", "2");
    file(&mut builder, &long, "3");
    file(&mut builder, "empty", "");
    let pax = [("path", &b"from/pax"[..]), ("mtime", b"0.5")];
    builder.append_pax_extensions(pax).unwrap();
    file(&mut builder, "ignored", "4");
    let pax = [("size", &b"5"[..])];
    builder.append_pax_extensions(pax).unwrap();
    let mut wrong = header(EntryType::Regular, 0);
    wrong.set_path("by-pax-size").unwrap();
    wrong.set_cksum();
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend_from_slice(wrong.as_bytes());
    bytes.extend_from_slice(b"hello");
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);

    let members = scan(&bytes);
    for (name, content) in [
        ("plain", "1"),
        ("a/b/c", "2"),
        (&long, "3"),
        ("empty", ""),
        ("from/pax", "4"),
        ("by-pax-size", "hello"),
    ] {
        assert_eq!(text(&members, name).as_deref(), Some(content), "{name}");
    }
    assert!(!members.contains("ignored") && !members.contains("a/b"));
    assert!(!members.is_cut_off());
}

#[test]
fn links_lead_to_members_only() {
    let mut builder = Builder::new(Vec::new());
    file(&mut builder, "x/layer", "content");
    link(&mut builder, EntryType::Symlink, "y/layer", "../x/layer");
    link(&mut builder, EntryType::Symlink, "z/layer", "../y/layer");
    link(&mut builder, EntryType::Link, "hard", "x/layer");
    link(&mut builder, EntryType::Symlink, "outside", "../etc/passwd");
    link(&mut builder, EntryType::Symlink, "absolute", "/etc/passwd");
    link(&mut builder, EntryType::Symlink, "loop1", "loop2");
    link(&mut builder, EntryType::Symlink, "loop2", "loop1");
    link(&mut builder, EntryType::Link, "x/layer", "x/layer");
    let members = scan(&builder.into_inner().unwrap());
    for name in ["x/layer", "y/layer", "z/layer", "hard"] {
        assert_eq!(text(&members, name).as_deref(), Some("content"), "{name}");
    }
    for name in [
        "outside",
        "absolute",
        "loop1",
        "etc/passwd",
        "../etc/passwd",
        "",
    ] {
        assert!(!members.contains(name), "{name}");
    }
}

#[test]
fn of_two_members_of_a_name_the_last_counts() {
    let mut builder = Builder::new(Vec::new());
    for content in ["first", "second"] {
        file(&mut builder, "twice", content);
        file(&mut builder, "gone", content);
    }
    builder
        .append_data(&mut header(EntryType::Directory, 0), "gone/", &[][..])
        .unwrap();
    let members = scan(&builder.into_inner().unwrap());
    assert_eq!(text(&members, "twice").as_deref(), Some("second"));
    assert!(!members.contains("gone"));
}

#[test]
fn archives_of_other_things_are_told_apart() {
    let root = TestRoot::new().unwrap();
    let rootfs = archive(&[
        ("bin/sh", b"x"),
        ("etc/passwd", b"root"),
        ("manifest.json", b"{\"name\":\"a program\"}"),
    ]);
    for (name, bytes) in [
        ("plain.tar", rootfs.clone()),
        ("plain.tar.gz", gzip(&rootfs)),
        ("plain.tar.zst", zstd::encode_all(&rootfs[..], 0).unwrap()),
        ("plain.tar.xz", b"\xfd7zXZ\0\0\0".to_vec()),
    ] {
        let path = root.join(name);
        fs::write(&path, bytes).unwrap();
        let error = open_local(&path, None).unwrap_err();
        assert!(matches!(error, OciError::NoImage { .. }), "{name}: {error}");
    }
    for (name, bytes) in [
        ("text", &b"no archive"[..]),
        ("empty", b""),
        ("zeros", &[0; 4096]),
        ("random", &[7; 4096]),
    ] {
        let path = root.join(name);
        fs::write(&path, bytes).unwrap();
        let error = open_local(&path, None).unwrap_err();
        assert!(matches!(error, OciError::Invalid { .. }), "{name}: {error}");
    }
}

#[test]
fn archives_may_be_compressed_as_a_whole() {
    let root = TestRoot::new().unwrap();
    let image = Image::new(&["a", "b"]);
    let path = root.join("image.tar");
    image.write(&hm_vm_oci::ArchiveWriter::new(&path, Some("x")).unwrap());
    let plain = fs::read(&path).unwrap();
    for (name, bytes) in [
        ("i.gz", gzip(&plain)),
        ("i.zst", zstd::encode_all(&plain[..], 0).unwrap()),
    ] {
        let path = root.join(name);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read_path(&path, Some("x")).config_digest, image.id());
        let limited = |unpacked_limit| LocalOptions {
            unpacked_limit,
            ..LocalOptions::default()
        };
        let error = open_local_with(&path, &limited(4096))
            .unwrap_err()
            .to_string();
        assert!(error.contains("more than 4096 bytes, unpacked"), "{error}");
        let nowhere = LocalOptions {
            scratch: Some(root.join("nowhere")),
            ..LocalOptions::default()
        };
        let error = open_local_with(&path, &nowhere).unwrap_err().to_string();
        assert!(error.contains("nowhere"), "{error}");
        let cancelled = LocalOptions::default();
        cancelled.cancel.cancel(hm_vm_core::CancelCause::User);
        let error = open_local_with(&path, &cancelled).unwrap_err();
        assert!(matches!(error, OciError::Cancelled(_)), "{error}");
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(open_local(&path, None).is_err());
    }
    let names = fs::read_dir(root.path()).unwrap().count();
    assert_eq!(names, 3, "nothing is left of what was unpacked");
}

#[test]
fn an_archive_that_changes_under_the_reader_is_found_out() {
    let root = TestRoot::new().unwrap();
    let image = Image::new(&["a"]);
    let path = root.join("image.tar");
    image.write(&hm_vm_oci::ArchiveWriter::new(&path, None).unwrap());
    let source = open_local(&path, None).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(2048)
        .unwrap();
    let layer = &image.manifest.layers[0];
    let read = source
        .open(layer)
        .map(|input| hm_vm_oci::Verified::new(input, layer).drain());
    assert!(read.unwrap().is_err());
}
