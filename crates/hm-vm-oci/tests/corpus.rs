//! The corpus of the fuzz targets, through what they check.

use std::path::Path;

#[path = "../../../fuzz/checks/images.rs"]
mod checks;

/// Puts every file of a target's corpus to its check.
fn all(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let held = std::panic::catch_unwind(|| check(&bytes));
        assert!(held.is_ok(), "{}", path.display());
        count += 1;
    }
    assert!(count > 20, "{} has only {count} files", corpus.display());
}

#[test]
fn manifests() {
    all("manifest", checks::manifest);
}

#[test]
fn references() {
    all("reference", checks::reference);
}

#[test]
fn archives() {
    all("archive_index", checks::archive_index);
}
