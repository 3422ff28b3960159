//! What the registry tells of entries: where they come from, and what became of those that are gone.

use std::num::NonZeroU64;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hm_vm::{ImageRegistry, NullSink, PutDetails, SnapshotId};

use super::support::{Bench, action, cache};

fn open(directory: &Path, capacity: u64) -> ImageRegistry {
    let path = directory.join("registry.db");
    ImageRegistry::open(&path, NonZeroU64::new(capacity).unwrap()).unwrap()
}

fn by(registry: &ImageRegistry, key: &str) -> Option<String> {
    registry.lost(key).unwrap().map(|lost| lost.by)
}

#[test]
fn every_way_out_is_told_until_the_key_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(directory.path(), 2);
    let before = SystemTime::now() - Duration::from_millis(1);
    for key in ["a", "b", "c"] {
        registry.put(key, &SnapshotId::new(key));
    }
    let lost = registry.lost("a").unwrap().unwrap();
    assert_eq!(lost.by, "the limit of 2 entries");
    assert!((before..=SystemTime::now()).contains(&lost.at));
    registry.invalidate("b");
    assert_eq!(by(&registry, "b").as_deref(), Some("a removal on request"));
    let c = SnapshotId::new("c");
    assert!(!registry.try_forget(&"c".repeat(2), &c).unwrap());
    assert!(registry.try_forget_because("c", &c, "the test").unwrap());
    assert_eq!(by(&registry, "c").as_deref(), Some("the test"));
    assert_eq!(by(&registry, "never there"), None);
    drop(registry);
    let registry = open(directory.path(), 1);
    assert!(by(&registry, "a").is_some(), "it is kept in the file");
    registry.put("a", &SnapshotId::new("again"));
    assert_eq!(by(&registry, "a"), None);
    registry.put("a", &SnapshotId::new("newer"));
    assert_eq!(by(&registry, "a"), None, "a replacement is no loss");
    registry.put("b", &SnapshotId::new("b"));
    assert_eq!(by(&registry, "a").as_deref(), Some("the limit of 1 entry"));
}

#[test]
fn only_the_newest_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(directory.path(), 1);
    for key in ["a", "b", "c"] {
        registry.put(key, &SnapshotId::new(key));
    }
    let raw = rusqlite::Connection::open(registry.path()).unwrap();
    // As if very many had gone in between.
    raw.execute_batch("UPDATE lost SET number = number + 99999 WHERE key = 'b'")
        .unwrap();
    registry.put("d", &SnapshotId::new("d"));
    assert!(by(&registry, "a").is_none());
    assert!(by(&registry, "b").is_some() && by(&registry, "c").is_some());
}

#[tokio::test]
async fn a_snapshot_that_is_gone_is_told() {
    let bench = Bench::new();
    let run = || bench.engine.execute(action("true"), cache("k"), &NullSink);
    let first = run().await.unwrap();
    bench.backend.lose_snapshot(&first.snapshot.unwrap());
    bench.backend.failpoints().fail_once("exec", "broken");
    run().await.unwrap_err();
    let registry = bench.engine.registry();
    assert_eq!(by(registry, "k").as_deref(), Some("its snapshot was gone"));
    run().await.unwrap();
    assert_eq!(by(registry, "k"), None);
}

#[test]
fn entries_are_read_in_the_order_of_their_keys() {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(directory.path(), 10);
    let details = PutDetails {
        parent: Some(SnapshotId::new("parent")),
        cost: Some(Duration::from_millis(1500)),
        ..PutDetails::default()
    };
    registry
        .try_put_entry("a", &SnapshotId::new("1"), details)
        .unwrap();
    registry.put("b", &SnapshotId::new("2"));
    let keys = ["b", "x", "a", "b"].map(str::to_owned);
    let entries = registry.entries_of(&keys).unwrap();
    let found: Vec<_> = entries
        .iter()
        .map(|entry| entry.as_ref().map(|entry| entry.key.as_str()))
        .collect();
    assert_eq!(found, [Some("b"), None, Some("a"), Some("b")]);
    let a = entries[2].as_ref().unwrap();
    assert_eq!(a.parent, Some(SnapshotId::new("parent")));
    assert_eq!(a.cost, Some(Duration::from_millis(1500)));
    assert_eq!(registry.entry("a").unwrap().as_ref(), Some(a));
    let b = entries[0].as_ref().unwrap();
    assert_eq!((&b.parent, b.cost, b.hits), (&None, None, 0));
    let hit = registry.try_hit("a").unwrap().unwrap();
    assert_eq!(
        (hit.parent, hit.cost, hit.created),
        (a.parent.clone(), a.cost, a.created)
    );
    // A result without these replaces them.
    registry.put("a", &SnapshotId::new("3"));
    let a = registry.entry("a").unwrap().unwrap();
    assert_eq!((a.parent, a.cost), (None, None));
    assert!(registry.entries_of(&[]).unwrap().is_empty());
}
