//! The corpus of the fuzz target for archives, through what it checks.

use std::path::Path;

use crate::common::is_root_or_skip;

#[path = "../../../fuzz/checks/layers.rs"]
mod checks;

#[test]
fn layers() {
    if !is_root_or_skip("layers") {
        return;
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/layer");
    let mut count = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let held = std::panic::catch_unwind(|| checks::layer(&bytes));
        assert!(held.is_ok(), "{}", path.display());
        count += 1;
    }
    assert!(count > 20, "{} has only {count} files", corpus.display());
}
