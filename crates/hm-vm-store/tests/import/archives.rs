use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use hm_vm_store::import::{ImportOptions, unpack_tar};
use tar::EntryType;

use super::support::{Archive, Place, header, is_root, run};

fn sample() -> Archive {
    Archive::default()
        .directory("./")
        .directory("etc")
        .file("etc/passwd", "root")
        .symlink("bin", "usr/bin")
        .link("etc/passwd-", "etc/passwd")
}

#[test]
fn all_compressions_give_the_same() {
    let plain = sample().end();
    let mut gzip = Vec::new();
    // Several members in a row, as pigz and others write them.
    for part in plain.chunks(700) {
        let mut encoder = flate2::write::GzEncoder::new(&mut gzip, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    let zstd = zstd::encode_all(&plain[..], 3).unwrap();
    let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(&plain).unwrap();
    let xz = encoder.finish().unwrap();
    let report = Place::new().unpack(&plain).unwrap();
    assert_eq!((report.entries, report.bytes), (4, 4));
    assert!(report.notices.is_empty(), "{:?}", report.notices);
    for packed in [gzip, zstd, xz] {
        assert_eq!(Place::new().unpack(&packed).unwrap(), report);
    }
}

#[test]
fn the_order_of_an_archive_does_not_matter() {
    let one = Archive::default()
        .directory("d")
        .file("d/a", "1")
        .file("d/b", "2");
    let other = Archive::default()
        .file("d/b", "2")
        .file("d/a", "1")
        .directory("d");
    let digest = |archive: Archive| Place::new().unpack(&archive.end()).unwrap().digest;
    let first = digest(one);
    assert_eq!(first, digest(other));
    let changed = Archive::default()
        .directory("d")
        .file("d/a", "1")
        .file("d/b", "3");
    assert_ne!(first, digest(changed));
}

#[test]
fn modes_times_and_hard_links_are_kept() {
    let place = Place::new();
    let mut program = header(EntryType::Regular, "program", 1);
    program.set_mode(0o4755);
    let mut directory = header(EntryType::Directory, "locked", 0);
    directory.set_mode(0o1500);
    let archive = Archive::default()
        .raw(&mut program, b"x")
        .link("again", "program")
        .raw(&mut directory, b"")
        .file("locked/file", "x");
    place.unpack(&archive.end()).unwrap();
    let stat = |path: &str| fs::symlink_metadata(place.dest.join(path)).unwrap();
    assert_eq!(stat("program").ino(), stat("again").ino());
    assert_eq!(stat("locked").mode() & 0o7777, 0o1500);
    assert_eq!(stat("locked").mtime(), 1_000_000_000);
    assert_eq!(stat("program").mtime(), 1_000_000_000);
    if is_root("set-id bits") {
        assert_eq!(stat("program").mode() & 0o7777, 0o4755);
    }
}

#[test]
fn extended_headers_are_taken_by_their_lengths() {
    let place = Place::new();
    let archive = Archive::default()
        .pax(&[
            ("path", b"line\nend \xff"),
            ("mtime", b"-1.5"),
            ("SCHILY.xattr.user.binary", b"a\nb\0c=d"),
        ])
        .file("x", "content");
    let report = place.unpack(&archive.end()).unwrap();
    let path = place.dest.join(OsStr::from_bytes(b"line\nend \xff"));
    let stat = fs::metadata(&path).unwrap();
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (-2, 500_000_000));
    let mut value = [0; 64];
    let count = rustix::fs::getxattr(&path, "user.binary", &mut value[..]).unwrap();
    assert_eq!(&value[..count], b"a\nb\0c=d");
    assert!(report.notices.is_empty(), "{:?}", report.notices);
}

#[test]
fn long_names_and_targets_of_gnu_tar() {
    let place = Place::new();
    let path = format!("{}/file", "directory".repeat(20));
    let target = "target/".repeat(40);
    let archive = Archive::default()
        .entry(
            EntryType::GNULongName,
            "././@LongLink",
            "",
            format!("{path}\0").as_bytes(),
        )
        .file("short", "x")
        .entry(
            EntryType::GNULongLink,
            "././@LongLink",
            "",
            format!("{target}\0").as_bytes(),
        )
        .symlink("link", "short");
    place.unpack(&archive.end()).unwrap();
    assert_eq!(place.read(&path), "x");
    let link = fs::read_link(place.dest.join("link")).unwrap();
    assert_eq!(link.as_os_str().as_bytes(), target.as_bytes());
}

#[test]
fn fifos_are_made_and_devices_when_allowed() {
    if !is_root("device nodes") {
        return;
    }
    let place = Place::new();
    let mut node = header(EntryType::Char, "null", 0);
    node.set_device_major(1).unwrap();
    node.set_device_minor(3).unwrap();
    let archive = Archive::default()
        .entry(EntryType::Fifo, "fifo", "", b"")
        .raw(&mut node, b"");
    let options = ImportOptions {
        devices: true,
        ..ImportOptions::default()
    };
    place.unpack_with(&archive.end(), &options).unwrap();
    let stat = |path: &str| fs::symlink_metadata(place.dest.join(path)).unwrap();
    assert!(stat("fifo").file_type().is_fifo());
    assert_eq!(stat("null").rdev(), rustix::fs::makedev(1, 3));
}

#[test]
fn owners_are_kept_by_number() {
    if !is_root("owners") {
        return;
    }
    let place = Place::new();
    let mut file = header(EntryType::Regular, "file", 0);
    file.set_uid(33);
    file.set_gid(44);
    let archive = Archive::default()
        .raw(&mut file, b"")
        .pax(&[("uid", b"70000")])
        .file("big", "");
    place.unpack(&archive.end()).unwrap();
    let stat = |path: &str| fs::symlink_metadata(place.dest.join(path)).unwrap();
    assert_eq!((stat("file").uid(), stat("file").gid()), (33, 44));
    assert_eq!((stat("big").uid(), stat("big").gid()), (70000, 0));
}

#[test]
fn sparse_members_of_every_format_become_sparse_files() {
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("sparse");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"begin").unwrap();
    file.set_len(4 << 20).unwrap();
    for region in 1..=30 {
        use std::os::unix::fs::FileExt;
        file.write_all_at(&[region; 4096], u64::from(region) * 65536)
            .unwrap();
    }
    let content = fs::read(&path).unwrap();
    let formats: [&[&str]; 5] = [
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
        &["--format=gnu", "--hole-detection=raw"],
    ];
    for format in formats {
        let archive = source.path().join("archive.tar");
        let mut arguments = vec!["-S", "-C", source.path().to_str().unwrap()];
        arguments.extend_from_slice(format);
        arguments.extend_from_slice(&["-cf", archive.to_str().unwrap(), "sparse"]);
        run("tar", &arguments);
        assert!(fs::metadata(&archive).unwrap().len() < 1 << 20);
        let place = Place::new();
        unpack_tar(&archive, &place.dest, &ImportOptions::default()).unwrap();
        let unpacked = place.dest.join("sparse");
        assert!(fs::read(&unpacked).unwrap() == content, "{format:?}");
        let blocks = fs::metadata(&unpacked).unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "{format:?}: {blocks} blocks");
    }
}
