//! Lists of injected files.

use std::fs;

use hm_vm_core::{Error, InjectEntry};

use super::case::Case;

fn entry(path: &str, digest: &str) -> InjectEntry {
    InjectEntry {
        path: path.into(),
        digest: digest.into(),
    }
}

#[test]
fn a_list_comes_back_as_it_was() {
    let case = Case::new();
    let entries = [entry("src/a\n\"b\"", "1"), entry("", "2")];
    // Digests are any text.
    let digest = "sha256:../../x";
    case.runs.save_manifest(digest, &entries).unwrap();
    assert!(case.runs.has_manifest(digest));
    let loaded = case.runs.load_manifest(digest).unwrap();
    assert_eq!(loaded.as_deref(), Some(&entries[..]));
    assert_eq!(case.runs.load_manifest("other").unwrap(), None);
    case.runs.save_manifest("empty", &[]).unwrap();
    assert_eq!(case.runs.load_manifest("empty").unwrap(), Some(vec![]));
}

#[test]
fn a_list_is_written_once() {
    let case = Case::new();
    case.runs.save_manifest("d", &[entry("a", "1")]).unwrap();
    case.runs.save_manifest("d", &[]).unwrap();
    let loaded = case.runs.load_manifest("d").unwrap().unwrap();
    assert_eq!(loaded.len(), 1);
}

#[test]
fn a_newer_or_broken_list_is_refused() {
    let case = Case::new();
    case.runs.save_manifest("d", &[]).unwrap();
    let directory = case.runs.directory().join("manifests");
    let path = fs::read_dir(directory)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for content in ["{\"version\":2}\n", "{\"version\":1}\n[\"a\"]\n", ""] {
        fs::write(&path, content).unwrap();
        let error = case.runs.load_manifest("d").unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(Error::BadState { .. })),
            "{content:?}: {error:#}"
        );
    }
}
