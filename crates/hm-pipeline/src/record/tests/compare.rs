//! What changed since a run.

use std::collections::BTreeMap;

use hm_vm_core::{InjectEntry, KeyBase, KeyComponents, NetworkPolicy};

use super::case::{Case, header, plan, succeeded};
use crate::record::{FileChanges, changed_files, compare};

fn components(cmd: &str) -> KeyComponents {
    KeyComponents {
        base: KeyBase::ImageDigest("d".into()),
        cmd: cmd.into(),
        env: BTreeMap::new(),
        working_dir: "/".into(),
        inject: None,
        user: None,
        network: NetworkPolicy::None,
        platform: "linux/x86_64".into(),
        extra: BTreeMap::new(),
    }
}

#[test]
fn a_step_is_compared_with_the_newest_run_that_knows_it() {
    let case = Case::new();
    let mut old = plan("ci");
    old.steps[0].components = Some(components("make"));
    let writer = case.runs.begin(&old, header(&old)).unwrap();
    writer.finish(&old, &succeeded(&old)).unwrap();
    // In a newer run it had no key.
    case.finished("ci");
    let identity = header(&old).identity;
    let previous = case.runs.previous_step(&identity, "a").unwrap().unwrap();
    assert!(case.runs.previous_step(&identity, "b").unwrap().is_none());
    let mut new = plan("ci");
    assert!(compare(&previous, &new.steps[0]).is_empty());
    new.steps[0].components = Some(components("make -j2"));
    let changes = compare(&previous, &new.steps[0]);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].component, "cmd");
    assert_eq!(changes[0].old.as_deref(), Some("make"));
    assert_eq!(changes[0].new.as_deref(), Some("make -j2"));
}

#[test]
fn files_are_added_removed_and_changed() {
    let list = |files: &[(&str, &str)]| -> Vec<InjectEntry> {
        let files = files.iter();
        let entry = |(path, digest): &(&str, &str)| InjectEntry {
            path: (*path).into(),
            digest: (*digest).into(),
        };
        files.map(entry).collect()
    };
    let old = list(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let new = list(&[("d", "1"), ("b", "2"), ("a", "1"), ("0", "1")]);
    let expected = FileChanges {
        added: vec!["0".into(), "d".into()],
        removed: vec!["c".into()],
        changed: vec!["b".into()],
    };
    assert_eq!(changed_files(&old, &new), expected);
    assert!(changed_files(&old, &old).is_empty());
}
