use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use hm_vm_store::import::{ImportError, ImportOptions, copy_directory, unpack_tar};
use rustix::fs::XattrFlags;
use tempfile::TempDir;

use super::support::{Place, is_root, run};

/// A small root file system with a bit of everything.
fn sample() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(path("usr/bin")).unwrap();
    fs::create_dir_all(path("var/empty")).unwrap();
    fs::write(path("usr/bin/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(path("usr/bin/tool"), fs::Permissions::from_mode(0o2755)).unwrap();
    fs::hard_link(path("usr/bin/tool"), path("usr/bin/other")).unwrap();
    symlink("usr/bin", path("bin")).unwrap();
    fs::write(root.path().join(OsStr::from_bytes(b"na\xffme\nx")), "x").unwrap();
    fs::File::create(path("sparse"))
        .unwrap()
        .set_len(2 << 20)
        .unwrap();
    run("mkfifo", &[path("fifo").to_str().unwrap()]);
    let flags = XattrFlags::empty();
    for (name, file) in [
        ("user.kept", "usr/bin/tool"),
        ("user.overlay.opaque", "var"),
    ] {
        rustix::fs::setxattr(path(file), name, b"y\n", flags).unwrap();
    }
    rustix::fs::setxattr(path("var"), "user.kept", b"d", flags).unwrap();
    fs::set_permissions(path("var/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    root
}

#[test]
fn a_directory_is_copied_as_it_is() {
    let source = sample();
    let place = Place::new();
    let report = copy_directory(source.path(), &place.dest, &ImportOptions::default()).unwrap();
    assert!(report.notices.is_empty(), "{:?}", report.notices);
    let stat = |root: &Path, path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    for path in ["usr", "usr/bin/tool", "bin", "var/empty", "sparse", "fifo"] {
        let (old, new) = (stat(source.path(), path), stat(&place.dest, path));
        assert_eq!(old.mode(), new.mode(), "{path}");
        assert_eq!(
            (old.mtime(), old.mtime_nsec()),
            (new.mtime(), new.mtime_nsec()),
            "{path}"
        );
    }
    let tool = stat(&place.dest, "usr/bin/tool");
    assert_eq!(tool.ino(), stat(&place.dest, "usr/bin/other").ino());
    assert!(stat(&place.dest, "sparse").blocks() < 100);
    let mut value = [0; 16];
    let count = rustix::fs::getxattr(place.dest.join("usr/bin/tool"), "user.kept", &mut value[..]);
    assert_eq!(&value[..count.unwrap()], b"y\n");
    let overlay = rustix::fs::getxattr(
        place.dest.join("var"),
        "user.overlay.opaque",
        &mut value[..],
    );
    assert_eq!(overlay, Err(rustix::io::Errno::NODATA));
    assert_eq!(report.entries, 10);
    assert_eq!(report.bytes, 10 + 1 + (2 << 20));
}

#[test]
fn a_directory_and_its_archive_have_one_digest() {
    let source = sample();
    let options = ImportOptions::default();
    if is_root("owners in digests") {
        chown(source.path().join("usr"), Some(1234), Some(5678)).unwrap();
    }
    let place = Place::new();
    let report = copy_directory(source.path(), &place.dest, &options).unwrap();
    let archives = tempfile::tempdir().unwrap();
    let source_path = source.path().to_str().unwrap();
    let forms: [(&str, &[&str]); 4] = [
        ("a.tar", &["--format=posix", "--xattrs"]),
        (
            "a.tar.gz",
            &["-z", "--format=posix", "--xattrs", "--sparse"],
        ),
        (
            "a.tar.zst",
            &["--zstd", "--format=posix", "--xattrs", "--sort=name"],
        ),
        (
            "a.tar.xz",
            &["-J", "--format=posix", "--xattrs", "--hard-dereference"],
        ),
    ];
    for (name, flags) in forms {
        let archive = archives.path().join(name);
        let archive_path = archive.to_str().unwrap();
        let mut arguments = vec!["-C", source_path];
        arguments.extend_from_slice(flags);
        arguments.extend_from_slice(&["-cf", archive_path, "."]);
        run("tar", &arguments);
        let place = Place::new();
        let unpacked = unpack_tar(&archive, &place.dest, &options).unwrap();
        assert_eq!(unpacked.digest, report.digest, "{name}");
    }
    fs::set_permissions(source.path().join("usr"), fs::Permissions::from_mode(0o700)).unwrap();
    let other = copy_directory(source.path(), &Place::new().dest, &options).unwrap();
    assert_ne!(other.digest, report.digest);
}

#[test]
fn a_copy_of_a_copy_is_the_same() {
    let source = sample();
    let options = ImportOptions::default();
    let (first, second) = (Place::new(), Place::new());
    let one = copy_directory(source.path(), &first.dest, &options).unwrap();
    let two = copy_directory(&first.dest, &second.dest, &options).unwrap();
    assert_eq!(one, two);
}

#[test]
fn the_destination_and_the_store_are_not_copied_into_themselves() {
    let source = sample();
    let dest = source.path().join("store/tmp/new");
    fs::create_dir_all(&dest).unwrap();
    fs::create_dir_all(source.path().join("other")).unwrap();
    let options = ImportOptions {
        exclude: vec![source.path().join("other")],
        ..ImportOptions::default()
    };
    let report = copy_directory(source.path(), &dest, &options).unwrap();
    assert!(dest.join("store/tmp").is_dir());
    assert!(!dest.join("store/tmp/new").exists());
    assert!(!dest.join("other").exists());
    assert!(report.notices[0].contains(": 2"), "{:?}", report.notices);
}

#[test]
fn sockets_are_left_out_with_a_notice() {
    let source = sample();
    let _socket = UnixListener::bind(source.path().join("socket")).unwrap();
    let place = Place::new();
    let report = copy_directory(source.path(), &place.dest, &ImportOptions::default()).unwrap();
    assert!(!place.dest.join("socket").exists());
    assert!(report.notices[0].contains("socket"), "{:?}", report.notices);
}

#[test]
fn mounts_below_are_not_entered() {
    // A directory that has a mount in it on every machine: the kernel's own file systems.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let has_mqueue = mounts.lines().any(|line| line.contains(" /dev/mqueue "));
    if !has_mqueue || !is_root("a mount below a directory") {
        println!("skipped: nothing is mounted on /dev/mqueue");
        return;
    }
    let place = Place::new();
    let report = copy_directory(Path::new("/dev"), &place.dest, &ImportOptions::default()).unwrap();
    assert_eq!(fs::read_dir(place.dest.join("mqueue")).unwrap().count(), 0);
    let told = report
        .notices
        .iter()
        .any(|notice| notice.contains("mount points"));
    assert!(told, "{:?}", report.notices);
}

#[test]
fn what_is_no_directory_or_empty_is_refused() {
    let source = tempfile::tempdir().unwrap();
    let file = source.path().join("file");
    let place = Place::new();
    let options = ImportOptions::default();
    let error = copy_directory(source.path(), &place.dest, &options).unwrap_err();
    assert!(error.to_string().contains("no entries"), "{error}");
    fs::write(&file, "x").unwrap();
    let error = copy_directory(&file, &place.dest, &options).unwrap_err();
    assert!(
        matches!(error, ImportError::InvalidInput { .. }),
        "{error:?}"
    );
}
