//! Whatever a guest does comes back the same.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use hm_vm_store::{ExportOptions, PullOptions};
use proptest::prelude::*;

use super::support::{Memory, entries, set_opaque, set_times, tree};
use crate::common::{Fixture, make_whiteout, upper};

/// What is done to one path of one layer. What cannot be done there is not.
#[derive(Clone, Debug)]
enum Action {
    File(Vec<u8>, u32),
    Directory(bool, u32),
    Whiteout,
    Symlink(String),
    HardLink(PathBuf),
    Holes(u64),
}

fn path() -> impl Strategy<Value = PathBuf> {
    let name = prop::sample::select(vec![
        "a",
        "b",
        "etc",
        "tmp",
        "hosts",
        "ä",
        "with space\nand line",
        "wh.a",
        "x.wh.",
    ]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.iter().collect())
}

fn action() -> impl Strategy<Value = Action> {
    let mode = prop::sample::select(vec![0o644, 0o755, 0o4711, 0o1777, 0o700]);
    prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..600), mode.clone())
            .prop_map(|(content, mode)| Action::File(content, mode)),
        (any::<bool>(), mode).prop_map(|(opaque, mode)| Action::Directory(opaque, mode)),
        Just(Action::Whiteout),
        "[a-z/.]{1,120}".prop_map(Action::Symlink),
        path().prop_map(Action::HardLink),
        (0..100_000u64).prop_map(Action::Holes),
    ]
}

type Layer = Vec<(PathBuf, Action)>;

fn apply(root: &Path, path: &Path, action: &Action) {
    let at = root.join(path);
    let parent = at.parent().unwrap();
    if at.symlink_metadata().is_ok() || !make_directories(root, parent) {
        return;
    }
    match action {
        Action::File(content, mode) => {
            fs::write(&at, content).unwrap();
            fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
        }
        Action::Directory(opaque, mode) => {
            fs::create_dir(&at).unwrap();
            fs::set_permissions(&at, fs::Permissions::from_mode(*mode | 0o700)).unwrap();
            if *opaque {
                set_opaque(&at);
            }
        }
        Action::Whiteout => make_whiteout(&at),
        Action::Symlink(target) => symlink(target, &at).unwrap(),
        Action::HardLink(target) => {
            let target = root.join(target);
            let found = target.symlink_metadata();
            if found.is_ok_and(|found| found.is_file()) {
                fs::hard_link(target, &at).unwrap();
            }
        }
        Action::Holes(length) => {
            let file = fs::File::create(&at).unwrap();
            file.set_len(*length).unwrap();
        }
    }
}

/// Makes the directories that lead somewhere, if nothing else is in the way.
fn make_directories(root: &Path, path: &Path) -> bool {
    let mut at = root.to_owned();
    for part in path.strip_prefix(root).unwrap() {
        at.push(part);
        match at.symlink_metadata() {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return false,
            Err(_) => fs::create_dir(&at).unwrap(),
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exported_and_pulled_is_the_same(
        layers in prop::collection::vec(
            prop::collection::vec((path(), action()), 0..25), 1..4)
    ) {
        let layers: Vec<Layer> = layers;
        let fixture = Fixture::new();
        let vm = fixture.vm();
        let mut snapshot = None;
        for layer in &layers {
            let root = upper(&fixture.store, &vm);
            for (path, action) in layer {
                apply(&root, path, action);
            }
            set_times(&root);
            snapshot = Some(vm.commit(None).unwrap());
        }
        let snapshot = snapshot.unwrap();
        let memory = Memory::default();
        let options = ExportOptions::default();
        fixture.store.export_snapshot(&snapshot, &memory, &options).unwrap();

        let other = Fixture::new();
        let pull = PullOptions::default();
        other.store.pull_image(&memory, "back", &pull).unwrap();
        let before = fixture.store.view(&snapshot).unwrap();
        let after = other.store.image_view("back").unwrap();
        prop_assert_eq!(tree(&before), tree(&after));

        let again = Memory::default();
        other.store.export_image("back", &again, &options).unwrap();
        for place in 0..memory.image().layers.len() {
            let mut first = entries(&memory.layer(place));
            let mut second = entries(&again.layer(place));
            first.remove(&b"./"[..]);
            second.remove(&b"./"[..]);
            prop_assert_eq!(first, second);
        }
    }
}
