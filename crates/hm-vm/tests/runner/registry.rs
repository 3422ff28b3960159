//! The registry against a model of it.

use std::num::NonZeroU64;
use std::path::Path;

use hm_vm::{ImageRegistry, SnapshotId};
use proptest::prelude::*;

fn open(path: &Path, capacity: u64) -> ImageRegistry {
    ImageRegistry::open(path, NonZeroU64::new(capacity).unwrap()).unwrap()
}

fn id(name: &str) -> SnapshotId {
    SnapshotId::new(name)
}

#[test]
fn put_returns_the_evicted_then_the_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    let registry = open(&path, 3);
    for name in ["a", "b", "c"] {
        assert!(registry.put(name, &id(name)).is_empty());
    }
    assert_eq!(registry.get("a"), Some(id("a")));
    assert_eq!(registry.put("d", &id("d")), [id("b")]);
    drop(registry);
    // A smaller capacity takes effect at the next put.
    let registry = open(&path, 1);
    assert_eq!(registry.len(), 3);
    assert_eq!(registry.put("a", &id("new")), [id("c"), id("d"), id("a")]);
    assert_eq!(registry.all_snapshot_ids(), [id("new")]);
}

#[test]
fn a_snapshot_that_a_key_holds_is_not_handed_back() {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(&directory.path().join("registry.db"), 2);
    registry.put("a", &id("shared"));
    registry.put("b", &id("shared"));
    assert!(registry.put("a", &id("shared")).is_empty(), "put again");
    assert!(registry.put("a", &id("other")).is_empty(), "b holds it");
    assert!(registry.put("c", &id("shared")).is_empty(), "c holds it");
    assert_eq!(registry.put("c", &id("new")), [id("shared")]);
    assert_eq!(registry.put("c", &id("new")), []);
    assert_eq!(registry.invalidate("c"), Some(id("new")));
    assert_eq!(registry.invalidate("c"), None);
}

#[test]
fn any_string_is_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(&directory.path().join("registry.db"), 100);
    let long = "x".repeat(1 << 20);
    for key in [
        "",
        "a\0b",
        "a",
        "A",
        "ä€",
        "'; DROP TABLE entries; --",
        "../..",
        &long,
    ] {
        registry.put(key, &id(key));
    }
    for key in [
        "",
        "a\0b",
        "a",
        "A",
        "ä€",
        "'; DROP TABLE entries; --",
        "../..",
        &long,
    ] {
        assert_eq!(registry.get(key), Some(id(key)));
    }
    assert_eq!(registry.len(), 8);
    assert_eq!(registry.get("ab"), None);
}

#[test]
fn a_pin_belongs_to_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    let registry = open(&path, 2);
    registry.put("a", &id("a"));
    registry.put("b", &id("b"));
    assert!(registry.pin("a").unwrap() && registry.pin("b").unwrap());
    assert!(!registry.pin("c").unwrap());
    assert!(registry.put("c", &id("c")).is_empty(), "over capacity");
    assert_eq!(registry.put("a", &id("a2")), [id("c"), id("a")]);
    drop(registry);
    let registry = open(&path, 2);
    assert!(registry.entry("a").unwrap().unwrap().pinned);
    assert!(registry.unpin("a").unwrap());
    assert_eq!(registry.put("d", &id("d")), [id("a2")]);
}

#[test]
fn entries_tell_what_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(&directory.path().join("registry.db"), 10);
    let before = std::time::SystemTime::now() - std::time::Duration::from_millis(1);
    registry.put("a", &id("1"));
    registry.put("b", &id("2"));
    registry.get("a");
    registry.get("a");
    let entries = registry.entries().unwrap();
    let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["b", "a"]);
    assert_eq!((entries[1].hits, entries[0].hits), (2, 0));
    assert!(entries[1].created >= before && entries[1].last_used >= entries[1].created);
    registry.put("a", &id("3"));
    assert_eq!(registry.entry("a").unwrap().unwrap().hits, 0);
    assert_eq!(registry.key_of(&id("3")).unwrap().as_deref(), Some("a"));
    assert_eq!(registry.entry("c").unwrap(), None);
    assert!(
        registry
            .try_forget("a", &id("1"))
            .is_ok_and(|forgot| !forgot)
    );
    assert!(registry.try_forget("a", &id("3")).unwrap());
}

#[derive(Clone, Debug)]
enum Operation {
    Put(u8, u8),
    Get(u8),
    Invalidate(u8),
    Pin(u8),
    Unpin(u8),
    Reopen,
    PutInOther(u8, u8),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..6u8, 0..5u8).prop_map(|(key, snapshot)| Operation::Put(key, snapshot)),
        1 => (0..6u8, 0..5u8).prop_map(|(key, snapshot)| Operation::PutInOther(key, snapshot)),
        3 => (0..6u8).prop_map(Operation::Get),
        1 => (0..6u8).prop_map(Operation::Invalidate),
        1 => (0..6u8).prop_map(Operation::Pin),
        1 => (0..6u8).prop_map(Operation::Unpin),
        1 => Just(Operation::Reopen),
    ]
}

/// Key, snapshot, pinned; least recently used first.
#[derive(Debug, Default)]
struct Model(Vec<(String, SnapshotId, bool)>);

impl Model {
    fn take(&mut self, key: &str) -> Option<(String, SnapshotId, bool)> {
        let place = self.0.iter().position(|entry| entry.0 == key)?;
        Some(self.0.remove(place))
    }

    fn put(&mut self, key: &str, snapshot: SnapshotId, capacity: usize) -> Vec<SnapshotId> {
        let old = self.take(key);
        let pinned = old.as_ref().is_some_and(|old| old.2);
        self.0.push((key.to_owned(), snapshot, pinned));
        let mut lost = Vec::new();
        while self.0.len() > capacity {
            let newest = self.0.len() - 1;
            match self.0[..newest].iter().position(|entry| !entry.2) {
                Some(place) => lost.push(self.0.remove(place).1),
                None => break,
            }
        }
        lost.extend(old.map(|old| old.1));
        let mut freed: Vec<SnapshotId> = Vec::new();
        for snapshot in lost {
            let held = self.0.iter().any(|entry| entry.1 == snapshot);
            if !held && !freed.contains(&snapshot) {
                freed.push(snapshot);
            }
        }
        freed
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn behaves_as_the_model(
        capacity in 1u64..5,
        operations in proptest::collection::vec(operation(), 0..60),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        let (mut registry, other) = (open(&path, capacity), open(&path, capacity));
        let mut model = Model::default();
        let size = usize::try_from(capacity).unwrap();
        for operation in operations {
            match operation {
                Operation::Put(key, snapshot) | Operation::PutInOther(key, snapshot) => {
                    let target = if matches!(operation, Operation::Put(..)) { &registry } else { &other };
                    let (key, snapshot) = (format!("k{key}"), id(&format!("s{snapshot}")));
                    let freed = target.try_put(&key, &snapshot).unwrap();
                    prop_assert_eq!(freed, model.put(&key, snapshot, size));
                }
                Operation::Get(key) => {
                    let entry = model.take(&format!("k{key}"));
                    let expected = entry.as_ref().map(|entry| entry.1.clone());
                    model.0.extend(entry);
                    prop_assert_eq!(registry.try_get(&format!("k{key}")).unwrap(), expected);
                }
                Operation::Invalidate(key) => {
                    let expected = model.take(&format!("k{key}")).map(|entry| entry.1);
                    prop_assert_eq!(registry.try_invalidate(&format!("k{key}")).unwrap(), expected);
                }
                Operation::Pin(key) | Operation::Unpin(key) => {
                    let (key, pin) = (format!("k{key}"), matches!(operation, Operation::Pin(_)));
                    let entry = model.0.iter_mut().find(|entry| entry.0 == key);
                    let found = if pin { registry.pin(&key) } else { registry.unpin(&key) };
                    prop_assert_eq!(found.unwrap(), entry.is_some());
                    entry.into_iter().for_each(|entry| entry.2 = pin);
                }
                Operation::Reopen => registry = open(&path, capacity),
            }
            let entries = registry.entries().unwrap();
            let order: Vec<_> = entries.into_iter().map(|e| (e.key, e.snapshot, e.pinned)).collect();
            prop_assert_eq!(&order, &model.0);
            prop_assert_eq!(registry.len(), model.0.len() as u64);
        }
    }
}
