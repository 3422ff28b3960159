//! Long work is counted while it is done.

use std::fs;

use hm_vm_core::{Progress, ProgressState, ProgressUnit};

use crate::common::Fixture;

fn state(unit: ProgressUnit, done: u64, total: Option<u64>) -> ProgressState {
    ProgressState { unit, done, total }
}

#[test]
fn an_inject_counts_files_and_links_whether_copied_or_linked() {
    let fixture = Fixture::new();
    let tree = fixture.directory.path().join("tree");
    fs::create_dir_all(tree.join("empty")).unwrap();
    for number in 0..300 {
        fs::write(tree.join(format!("file{number}")), "x").unwrap();
    }
    std::os::unix::fs::symlink("file0", tree.join("link")).unwrap();
    let vm = fixture.vm();
    assert_eq!(vm.inject_progress().now(), ProgressState::default());
    vm.inject(&tree, "/work").unwrap();
    let all = state(ProgressUnit::Files, 301, Some(301));
    assert_eq!(vm.inject_progress().now(), all);
    fs::write(tree.join("file0"), "changed").unwrap();
    let report = vm.inject(&tree, "/work").unwrap();
    assert_eq!((report.files_copied, report.files_linked), (1, 299));
    assert_eq!(vm.inject_progress().now(), all);
    // What is there already is no work.
    assert!(vm.inject(&tree, "/work").unwrap().reused);
    let none = state(ProgressUnit::Files, 0, Some(0));
    assert_eq!(vm.inject_progress().now(), none);
}

#[test]
fn an_import_counts_bytes_of_an_archive_and_entries_of_a_directory() {
    let fixture = Fixture::new();
    let root = fixture.directory.path().join("root");
    let progress = Progress::new();
    let image = fixture
        .store
        .import_image_watched(&root, "directory", &progress)
        .unwrap();
    let counted = progress.now();
    assert!(image.entries > 0);
    let entries = state(ProgressUnit::Files, image.entries, None);
    assert_eq!(counted, entries);
    let archive = fixture.directory.path().join("root.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    builder.append_dir_all(".", &root).unwrap();
    builder.into_inner().unwrap();
    // Zeros behind the end mark, as tar writes them to fill a record.
    let file = fs::OpenOptions::new().write(true).open(&archive).unwrap();
    file.set_len(1 << 20).unwrap();
    fixture
        .store
        .import_image_watched(&archive, "archive", &progress)
        .unwrap();
    let bytes = state(ProgressUnit::Bytes, 1 << 20, Some(1 << 20));
    assert_eq!(progress.now(), bytes);
}
