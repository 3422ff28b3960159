//! Collection, on a real store.

use std::fs;
use std::num::NonZeroU64;
use std::time::Duration;

use hm_vm::gc::{GcPolicy, Reason, collect};
use hm_vm::store::{Base, Store};
use hm_vm::{ImageRegistry, SnapshotId};

struct Place {
    directory: tempfile::TempDir,
    store: Store,
    registry: ImageRegistry,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("image");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "of the image").unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        store.import_image(&root, "image").unwrap();
        let path = store.root().join("registry.db");
        let registry = ImageRegistry::open(&path, NonZeroU64::new(100).unwrap()).unwrap();
        Self {
            directory,
            store,
            registry,
        }
    }

    /// A snapshot with a file of 64 KiB of its own, under `key` if there is one.
    fn snapshot(&self, base: Base<'_>, name: &str, key: Option<&str>) -> SnapshotId {
        let vm = self.store.new_vm(base).unwrap();
        let upper = self.store.root().join(vm.upper());
        fs::write(upper.join(name), name.repeat((64 << 10) / name.len())).unwrap();
        let snapshot = vm.commit(key).unwrap();
        if let Some(key) = key {
            assert!(self.registry.put(key, &snapshot).is_empty());
        }
        snapshot
    }

    fn left(&self) -> Vec<SnapshotId> {
        let snapshots = self.store.snapshots().unwrap();
        snapshots.into_iter().map(|info| info.id).collect()
    }
}

/// Everything is old enough.
fn at_once() -> GcPolicy {
    GcPolicy {
        unowned_age: Duration::ZERO,
        spare_recent: Duration::ZERO,
        ..GcPolicy::default()
    }
}

#[test]
fn leaves_go_first_and_pinned_lineages_stay() {
    let place = Place::new();
    let base = place.snapshot(Base::Image("image"), "base", Some("base"));
    let old = place.snapshot(Base::Snapshot(&base), "old", Some("old"));
    let pinned = place.snapshot(Base::Snapshot(&base), "pinned", Some("pinned"));
    let unowned = place.snapshot(Base::Snapshot(&old), "unowned", None);
    place.registry.pin("pinned").unwrap();
    place.registry.put("lost", &SnapshotId::new("nowhere"));
    let policy = GcPolicy {
        max_bytes: Some(0),
        ..at_once()
    };
    let dry = GcPolicy {
        dry_run: true,
        ..policy.clone()
    };
    let planned = collect(&place.registry, &place.store, &dry).unwrap();
    assert_eq!(place.left().len(), 4);
    assert_eq!(place.registry.len(), 4);
    let done = collect(&place.registry, &place.store, &policy).unwrap();
    assert_eq!(planned.removed, done.removed);
    let removed: Vec<_> = done
        .removed
        .iter()
        .map(|r| (&r.snapshot, r.reason))
        .collect();
    let nowhere = SnapshotId::new("nowhere");
    assert_eq!(
        removed,
        [
            (&unowned, Reason::Unowned),
            (&old, Reason::Bytes),
            (&nowhere, Reason::Lost)
        ]
    );
    assert_eq!(done.removed[1].keys, ["old"]);
    let by = |key: &str| place.registry.lost(key).unwrap().map(|lost| lost.by);
    assert_eq!(
        by("old").as_deref(),
        Some("collection (over the byte budget)")
    );
    assert_eq!(by("lost").as_deref(), Some("its snapshot was gone"));
    assert_eq!(by("base"), None);
    assert!(done.removed[1].bytes >= 64 << 10, "{done:?}");
    assert!(done.freed_bytes >= 128 << 10, "{done:?}");
    assert_eq!(place.left(), [base, pinned]);
    assert_eq!(done.kept, 2);
    assert_eq!(place.registry.len(), 2);
    assert!(place.directory.path().exists());
}

#[test]
fn what_was_just_used_stays_whatever_the_limits() {
    let place = Place::new();
    place.snapshot(Base::Image("image"), "a", Some("a"));
    place.snapshot(Base::Image("image"), "b", None);
    let policy = GcPolicy {
        max_bytes: Some(0),
        max_entries: Some(0),
        max_age: Some(Duration::ZERO),
        ..GcPolicy::default()
    };
    let report = collect(&place.registry, &place.store, &policy).unwrap();
    assert!(report.removed.is_empty(), "{report:?}");
    assert_eq!((report.kept, place.left().len()), (2, 2));
}
