//! A merged layer shows the same as the layers that went into it: to the store's own view, and to
//! the kernel's overlayfs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use crate::tree::directory::{OPAQUE, file_type, join};
use crate::tree::merge::merge;
use crate::view::merged::{Merged, Node};

/// What a layer has at a path.
#[derive(Clone, Debug)]
enum Item {
    File(u8),
    Directory {
        mode: u32,
        opaque: bool,
    },
    Whiteout,
    Symlink(u8),
    Fifo,
    /// Another name of the last file of the layer.
    HardLink,
}

type Layer = Vec<(Vec<u8>, Item)>;

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        3 => any::<u8>().prop_map(Item::File),
        4 => (0u32..8, any::<bool>()).prop_map(|(bits, opaque)| Item::Directory {
            mode: 0o700 | (bits << 3) | (bits & 5),
            opaque,
        }),
        3 => Just(Item::Whiteout),
        1 => any::<u8>().prop_map(Item::Symlink),
        1 => Just(Item::Fifo),
        1 => Just(Item::HardLink),
    ]
}

/// Layers over few names, so that they meet.
fn layers(most: usize) -> impl Strategy<Value = Vec<Layer>> {
    let path = proptest::collection::vec(0u8..3, 1..4);
    let layer = proptest::collection::vec((path, item()), 0..14);
    proptest::collection::vec(layer, 2..most)
}

fn build(root: &Path, layer: &Layer) {
    fs::create_dir_all(root).unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    let mut last_file = None;
    for (path, item) in layer {
        let names: PathBuf = path.iter().map(|name| format!("n{name}")).collect();
        let path = root.join(names);
        if path.symlink_metadata().is_ok() || !make_parents(root, &path) {
            continue;
        }
        match item {
            Item::File(byte) => {
                fs::write(&path, [*byte; 3]).unwrap();
                last_file = Some(path);
            }
            Item::Directory { mode, opaque } => {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                setxattr(&path, "user.kept", b"1", XattrFlags::empty()).unwrap();
                if *opaque {
                    setxattr(&path, OPAQUE, b"y", XattrFlags::empty()).unwrap();
                }
            }
            Item::Whiteout => {
                mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
            }
            Item::Symlink(byte) => symlink(format!("target{byte}"), &path).unwrap(),
            Item::Fifo => mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
            Item::HardLink => {
                if let Some(file) = &last_file {
                    fs::hard_link(file, &path).unwrap();
                }
            }
        }
    }
}

/// Parent directories are made where there is nothing, and are in the way where there is a file.
fn make_parents(root: &Path, path: &Path) -> bool {
    let parent = path.parent().unwrap();
    if parent == root || parent.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return true;
    }
    if parent.symlink_metadata().is_ok() || !make_parents(root, parent) {
        return false;
    }
    fs::create_dir(parent).unwrap();
    true
}

/// Every path with what a user sees of it.
fn view_of(layers: &[PathBuf]) -> BTreeMap<Vec<u8>, String> {
    let paths = layers.iter().enumerate();
    let tree =
        Merged::open(paths.map(|(id, path)| (i64::try_from(id).unwrap() + 1, path.as_path())))
            .unwrap();
    let mut found = BTreeMap::new();
    let mut todo = vec![tree.root()];
    while let Some(directory) = todo.pop() {
        let open = tree.open_directory(&directory).unwrap();
        for (name, node) in open.entries().unwrap() {
            // The kernel lists whiteouts in directories that only one layer has.
            let Some(looked_up) = open.child(&name).unwrap() else {
                assert_eq!(layers.len(), 1);
                continue;
            };
            assert_eq!(format!("{looked_up:?}"), format!("{node:?}"));
            let path = join(&directory.path, name.to_bytes());
            let stat = tree.stat(&node).unwrap();
            let content = match (&node, file_type(&stat)) {
                (Node::Leaf(leaf), FileType::RegularFile) => {
                    let mut file = fs::File::from(tree.open_file(leaf).unwrap());
                    let mut content = String::new();
                    std::io::Read::read_to_string(&mut file, &mut content).unwrap_or(0);
                    format!("{content:?}")
                }
                (Node::Leaf(leaf), FileType::Symlink) => {
                    format!("{:?}", tree.read_link(leaf).unwrap())
                }
                (Node::Directory(directory), _) => {
                    let top = tree.open_top(directory).unwrap();
                    let xattrs = crate::tree::attributes::extended(std::os::fd::AsFd::as_fd(&top));
                    format!("{:?}", xattrs.unwrap())
                }
                _ => String::new(),
            };
            found.insert(path, format!("{:o} {content}", stat.st_mode));
            if let Node::Directory(directory) = node {
                todo.push(directory);
            }
        }
    }
    found
}

/// Builds the layers, topmost first, and merges some of them. Returns both stacks.
fn both(directory: &Path, layers: &[Layer], start: usize, count: usize) -> [Vec<PathBuf>; 2] {
    let paths: Vec<PathBuf> = (0..layers.len())
        .map(|number| directory.join(number.to_string()))
        .collect();
    for (path, layer) in paths.iter().zip(layers) {
        build(path, layer);
    }
    let merged = directory.join("merged");
    fs::create_dir(&merged).unwrap();
    let window: Vec<&Path> = paths[start..start + count]
        .iter()
        .map(PathBuf::as_path)
        .collect();
    assert!(merge(&window, &merged, &AtomicBool::new(false)).unwrap());
    let mut short = paths.clone();
    short.splice(start..start + count, [merged]);
    [paths, short]
}

fn window(length: usize, start: usize, count: usize) -> (usize, usize) {
    let start = start % (length - 1);
    (start, 2 + count % (length - start - 1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_view_of_a_merged_layer_is_the_same(
        layers in layers(6), start in 0usize..8, count in 0usize..8,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (start, count) = window(layers.len(), start, count);
        let [long, short] = both(directory.path(), &layers, start, count);
        prop_assert_eq!(view_of(&long), view_of(&short));
    }
}

/// What the kernel shows of these layers.
fn kernel_view(directory: &Path, layers: &[PathBuf]) -> BTreeMap<Vec<u8>, String> {
    let mount = directory.join("mount");
    fs::create_dir_all(&mount).unwrap();
    let mut options = String::from("userxattr,lowerdir=");
    for layer in layers {
        options.push_str(layer.to_str().unwrap());
        options.push(':');
    }
    // One layer alone is refused.
    let bottom = directory.join("bottom");
    fs::create_dir_all(&bottom).unwrap();
    options.push_str(bottom.to_str().unwrap());
    let status = Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &options])
        .arg(&mount)
        .status()
        .unwrap();
    assert!(status.success());
    let found = view_of(std::slice::from_ref(&mount));
    let status = Command::new("umount").arg(&mount).status().unwrap();
    assert!(status.success());
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_kernel_sees_the_same(layers in layers(6), start in 0usize..8, count in 0usize..8) {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("HMVM_TEST_REQUIRE_ALL").is_none(), "needs root");
            eprintln!("SKIPPED the_kernel_sees_the_same: needs root");
            return Ok(());
        }
        let directory = tempfile::tempdir().unwrap();
        let (start, count) = window(layers.len(), start, count);
        let [long, short] = both(directory.path(), &layers, start, count);
        let kernel = kernel_view(directory.path(), &long);
        prop_assert_eq!(&kernel, &kernel_view(directory.path(), &short));
        prop_assert_eq!(&kernel, &view_of(&long));
    }
}

#[test]
fn hard_links_holes_and_times_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (top, low) = (directory.path().join("top"), directory.path().join("low"));
    fs::create_dir_all(top.join("d")).unwrap();
    fs::create_dir_all(low.join("d")).unwrap();
    fs::write(low.join("d/one"), "x").unwrap();
    fs::hard_link(low.join("d/one"), low.join("two")).unwrap();
    let sparse = fs::File::create(low.join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::open(top.join("d"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    let merged = directory.path().join("merged");
    fs::create_dir(&merged).unwrap();
    assert!(merge(&[&top, &low], &merged, &AtomicBool::new(false)).unwrap());
    let inode = |path: &str| fs::metadata(merged.join(path)).unwrap().ino();
    assert_eq!(inode("d/one"), inode("two"));
    assert_eq!(fs::metadata(merged.join("sparse")).unwrap().blocks(), 0);
    assert_eq!(
        fs::metadata(merged.join("d")).unwrap().modified().unwrap(),
        old
    );
}
