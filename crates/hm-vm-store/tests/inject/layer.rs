use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hm_vm_store::inject::{
    DirectoryAttributes, EmptyGuest, GuestEntry, GuestView, InjectError, LayerReport, LayerRequest,
    LinkSource, Tree, layer_identity, write_layer,
};
use tempfile::TempDir;

use super::support::{Host, mode, set_mode};

const GUEST_DIR: &str = "/work/src";

/// A plain directory as the guest's root.
struct PlainGuest<'a>(&'a Path);

impl GuestView for PlainGuest<'_> {
    fn entry(&self, path: &Path) -> io::Result<Option<GuestEntry>> {
        let stat = match fs::symlink_metadata(self.0.join(path.strip_prefix("/").unwrap())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            stat => stat?,
        };
        Ok(Some(if stat.is_dir() {
            GuestEntry::Directory(DirectoryAttributes {
                mode: stat.permissions().mode() & 0o7777,
                uid: stat.uid(),
                gid: stat.gid(),
            })
        } else if stat.is_symlink() {
            GuestEntry::Symlink
        } else {
            GuestEntry::Other
        }))
    }

    fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(self.0.join(path.strip_prefix("/").unwrap()))?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    }
}

struct Layer {
    root: TempDir,
    tree: Tree,
    report: LayerReport,
}

impl Layer {
    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join("work/src").join(path)
    }
}

fn request<'a>(host: &'a Host, dest: &'a Path, guest: &'a dyn GuestView) -> LayerRequest<'a> {
    LayerRequest {
        host_dir: &host.dir,
        dest,
        guest_dir: Path::new(GUEST_DIR),
        guest,
        replaces: None,
        link_from: None,
    }
}

fn inject(host: &Host) -> Layer {
    let root = tempfile::tempdir().unwrap();
    let tree = host.scan();
    let report = write_layer(&tree, &request(host, root.path(), &EmptyGuest)).unwrap();
    Layer { root, tree, report }
}

/// Injects again, over `earlier`, whose tree the guest may have changed.
fn inject_over(host: &Host, earlier: &Layer) -> Layer {
    let root = tempfile::tempdir().unwrap();
    let tree = host.scan();
    let guest = PlainGuest(earlier.root.path());
    let request = LayerRequest {
        replaces: Some(&earlier.tree),
        link_from: Some(LinkSource {
            tree: &earlier.tree,
            layer: earlier.root.path(),
            guest_dir: Path::new(GUEST_DIR),
        }),
        ..request(host, root.path(), &guest)
    };
    let report = write_layer(&tree, &request).unwrap();
    Layer { root, tree, report }
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|stat| stat.file_type().is_char_device() && stat.rdev() == 0)
}

/// Everything below a directory: path and kind.
fn listing(root: &Path) -> BTreeMap<PathBuf, &'static str> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let kind = if stat.is_dir() {
                left.push(path.clone());
                "directory"
            } else if stat.is_symlink() {
                "link"
            } else if is_whiteout(&path) {
                "whiteout"
            } else {
                "file"
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), kind);
        }
    }
    found
}

#[test]
fn a_layer_holds_the_tree_at_its_place() {
    let host = Host::new();
    let script = host.write("bin/run", "#!/bin/sh\n");
    set_mode(&script, 0o4751);
    fs::create_dir(host.dir.join("empty")).unwrap();
    set_mode(&host.dir.join("empty"), 0o1777);
    symlink("bin/run", host.dir.join("link")).unwrap();
    set_mode(&host.dir.join("bin"), 0o555);
    let old = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    let times = FileTimes::new().set_modified(old);
    for path in ["bin/run", "empty"] {
        File::open(host.dir.join(path))
            .unwrap()
            .set_times(times)
            .unwrap();
    }
    let layer = inject(&host);
    assert_eq!(fs::read(layer.path("bin/run")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(mode(&layer.path("bin/run")), 0o4751);
    assert_eq!(mode(&layer.path("bin")), 0o555);
    assert_eq!(mode(&layer.path("empty")), 0o1777);
    assert_eq!(
        fs::read_link(layer.path("link")).unwrap(),
        Path::new("bin/run")
    );
    for path in ["bin/run", "empty"] {
        let modified = fs::metadata(layer.path(path)).unwrap().modified().unwrap();
        assert_eq!(modified, old, "{path}");
    }
    assert_eq!(mode(&layer.root.path().join("work")), 0o755);
    assert_eq!(mode(layer.root.path()), 0o755);
    let report = &layer.report;
    assert_eq!(
        (
            report.files_copied,
            report.bytes_copied,
            report.directories,
            report.symlinks
        ),
        (1, 10, 2, 1)
    );
    set_mode(&host.dir.join("bin"), 0o755);
    set_mode(&layer.path("bin"), 0o755);
}

#[test]
fn the_root_can_be_the_place() {
    let host = Host::new();
    host.write("file", "x");
    let root = tempfile::tempdir().unwrap();
    let request = LayerRequest {
        guest_dir: Path::new("/"),
        ..request(&host, root.path(), &EmptyGuest)
    };
    write_layer(&host.scan(), &request).unwrap();
    assert_eq!(fs::read(root.path().join("file")).unwrap(), b"x");
}

#[test]
fn directories_that_the_guest_has_keep_their_attributes() {
    let host = Host::new();
    host.write("file", "x");
    let guest = tempfile::tempdir().unwrap();
    fs::create_dir(guest.path().join("work")).unwrap();
    set_mode(&guest.path().join("work"), 0o2770);
    set_mode(guest.path(), 0o711);
    let root = tempfile::tempdir().unwrap();
    let view = PlainGuest(guest.path());
    write_layer(&host.scan(), &request(&host, root.path(), &view)).unwrap();
    assert_eq!(mode(&root.path().join("work")), 0o2770);
    assert_eq!(mode(root.path()), 0o711);
    assert_eq!(mode(&root.path().join("work/src")), 0o755);
}

#[test]
fn a_place_that_cannot_be_a_directory_is_invalid_input() {
    let host = Host::new();
    let guest = tempfile::tempdir().unwrap();
    fs::write(guest.path().join("file"), "x").unwrap();
    symlink("/", guest.path().join("link")).unwrap();
    let view = PlainGuest(guest.path());
    for guest_dir in ["relative", "/a/../b", "/file/x", "/link"] {
        let root = tempfile::tempdir().unwrap();
        let request = LayerRequest {
            guest_dir: Path::new(guest_dir),
            ..request(&host, root.path(), &view)
        };
        let error = write_layer(&host.scan(), &request).unwrap_err();
        assert!(
            matches!(error, InjectError::InvalidInput { .. }),
            "{error:?}"
        );
        assert!(listing(root.path()).is_empty());
    }
}

#[test]
fn equal_files_are_linked_and_others_copied() {
    let host = Host::new();
    host.write("same", "same");
    host.write("changed", "before");
    let other_mode = host.write("mode", "mode");
    let first = inject(&host);
    host.write("changed", "after!");
    set_mode(&other_mode, 0o700);
    host.write("new", "new");
    let second = inject_over(&host, &first);
    assert_eq!(second.report.files_linked, 1);
    assert_eq!(second.report.files_copied, 3);
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(first.path("same")), inode(second.path("same")));
    assert_eq!(fs::read(first.path("changed")).unwrap(), b"before");
    assert_eq!(fs::read(second.path("changed")).unwrap(), b"after!");
    assert_eq!(mode(&first.path("mode")), 0o644);
    assert_eq!(mode(&second.path("mode")), 0o700);
}

#[test]
fn an_unchanged_tree_copies_nothing() {
    let host = Host::new();
    for index in 0..300 {
        host.write(&format!("d{}/f{index}", index % 7), format!("{index}"));
    }
    let first = inject(&host);
    let second = inject_over(&host, &first);
    assert_eq!(second.report.files_copied, 0);
    assert_eq!(second.report.bytes_copied, 0);
    assert_eq!(second.report.files_linked, 300);
    assert_eq!(listing(first.root.path()), listing(second.root.path()));
}

#[test]
fn a_file_that_changed_since_the_scan_is_not_stored() {
    for content in ["Content", "longer content"] {
        let host = Host::new();
        host.write("file", "content");
        let tree = host.scan();
        host.write("file", content);
        let root = tempfile::tempdir().unwrap();
        let error = write_layer(&tree, &request(&host, root.path(), &EmptyGuest)).unwrap_err();
        let InjectError::ChangedWhileReading { path } = error else {
            panic!("{error:?}");
        };
        assert_eq!(path, Path::new("file"));
    }
}

#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "content").unwrap();
    host.write("dir/file", "content");
    let tree = host.scan();
    fs::remove_dir_all(host.dir.join("dir")).unwrap();
    symlink(outside.path(), host.dir.join("dir")).unwrap();
    let root = tempfile::tempdir().unwrap();
    let error = write_layer(&tree, &request(&host, root.path(), &EmptyGuest)).unwrap_err();
    assert!(
        matches!(error, InjectError::ChangedWhileReading { .. }),
        "{error:?}"
    );
}

#[test]
fn what_is_no_longer_there_is_removed() {
    let host = Host::new();
    host.write("gone", "x");
    host.write("stays", "x");
    host.write("dir/gone", "x");
    host.write("dir/stays", "x");
    host.write("all/of/it", "x");
    symlink("x", host.dir.join("link")).unwrap();
    let first = inject(&host);
    for path in ["gone", "dir/gone", "link"] {
        fs::remove_file(host.dir.join(path)).unwrap();
    }
    fs::remove_dir_all(host.dir.join("all")).unwrap();
    let second = inject_over(&host, &first);
    for path in ["gone", "dir/gone", "link", "all"] {
        assert!(is_whiteout(&second.path(path)), "{path}");
    }
    assert_eq!(second.report.whiteouts, 4);
    assert_eq!(second.report.files_linked, 2);
}

#[test]
fn what_the_guest_made_or_removed_itself_is_left_alone() {
    let host = Host::new();
    host.write("dir/injected", "x");
    host.write("dir/removed", "x");
    host.write("dir/sub/injected", "x");
    host.write("replaced", "x");
    let first = inject(&host);
    fs::write(first.path("dir/own"), "x").unwrap();
    set_mode(&first.path("dir"), 0o711);
    fs::remove_file(first.path("dir/removed")).unwrap();
    fs::remove_file(first.path("replaced")).unwrap();
    fs::create_dir(first.path("replaced")).unwrap();
    fs::remove_dir_all(host.dir.join("dir")).unwrap();
    fs::remove_file(host.dir.join("replaced")).unwrap();
    let second = inject_over(&host, &first);
    let found = listing(&second.path(""));
    let found: Vec<_> = found
        .iter()
        .map(|(path, kind)| (path.to_str().unwrap(), *kind))
        .collect();
    assert_eq!(
        found,
        [
            ("dir", "directory"),
            ("dir/injected", "whiteout"),
            ("dir/sub", "whiteout")
        ]
    );
    assert_eq!(mode(&second.path("dir")), 0o711);
}

#[test]
fn kinds_may_change_between_injects() {
    let host = Host::new();
    host.write("becomes-file/x/y", "x");
    host.write("becomes-directory", "x");
    host.write("becomes-link/x", "x");
    let first = inject(&host);
    for path in ["becomes-file", "becomes-link"] {
        fs::remove_dir_all(host.dir.join(path)).unwrap();
    }
    host.write("becomes-file", "x");
    symlink("becomes-file", host.dir.join("becomes-link")).unwrap();
    fs::remove_file(host.dir.join("becomes-directory")).unwrap();
    host.write("becomes-directory/x", "x");
    let second = inject_over(&host, &first);
    let found = listing(&second.path(""));
    let found: Vec<_> = found
        .iter()
        .map(|(path, kind)| (path.to_str().unwrap(), *kind))
        .collect();
    assert_eq!(
        found,
        [
            ("becomes-directory", "directory"),
            ("becomes-directory/x", "file"),
            ("becomes-file", "file"),
            ("becomes-link", "link"),
        ]
    );
}

#[test]
fn the_identity_tells_what_the_layer_depends_on() {
    let host = Host::new();
    host.write("a", "x");
    host.write("b", "x");
    let first = inject(&host);
    fs::remove_file(host.dir.join("a")).unwrap();
    let tree = host.scan();
    let guest = PlainGuest(first.root.path());
    let plain = request(&host, first.root.path(), &guest);
    let identity = |request: &LayerRequest<'_>| layer_identity(&tree, request).unwrap();
    let removing = LayerRequest {
        replaces: Some(&first.tree),
        ..plain
    };
    let elsewhere = LayerRequest {
        guest_dir: Path::new("/elsewhere"),
        ..plain
    };
    let without_effect = LayerRequest {
        replaces: Some(&tree),
        dest: Path::new("/another"),
        ..plain
    };
    assert_ne!(identity(&plain), identity(&removing));
    assert_ne!(identity(&plain), identity(&elsewhere));
    assert_eq!(identity(&plain), identity(&without_effect));
    set_mode(&first.root.path().join("work"), 0o700);
    let before = identity(&elsewhere);
    assert_ne!(identity(&plain), before);
}

#[test]
fn holes_stay_holes() {
    let host = Host::new();
    let path = host.write("sparse", "begin");
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(8 << 20).unwrap();
    let layer = inject(&host);
    let stat = fs::metadata(layer.path("sparse")).unwrap();
    assert_eq!(stat.len(), 8 << 20);
    assert!(stat.blocks() * 512 < 1 << 20, "{} blocks", stat.blocks());
    assert_eq!(
        fs::read(layer.path("sparse")).unwrap(),
        fs::read(&path).unwrap()
    );
}
