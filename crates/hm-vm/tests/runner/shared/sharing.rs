//! Results that go from one machine to another.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use hm_vm::remote::{CacheMode, RemoteCache as _};
use hm_vm::{CachingPolicy, ExecuteOptions, NullSink, Phase};
use hm_vm_testkit::require;

use super::memory::Memory;
use super::{Machine, Step, World, action};

const STEPS: [&str; 3] = [
    "echo one; echo 1 > /one; mkdir /d; echo x > /d/x",
    "echo two >&2; echo 2 > /two; rm /d/x",
    "echo 3 > /three; rm -r /d",
];

async fn all(machine: &Machine) -> Vec<Step> {
    let mut done: Vec<Step> = Vec::new();
    for cmd in STEPS {
        let step = machine.step(done.last(), cmd).await;
        done.push(step);
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_executes_nothing() {
    let world = require!(World::new());
    let place = Memory::new();
    let a = world.machine("a", &place);
    let made = all(&a).await;
    made.iter().for_each(Step::ran);
    let report = a.publish_all().await;
    assert_eq!((report.published, report.failed.len()), (3, 0));
    assert!(report.bytes > 0);
    let b = world.machine("b", &place);
    let came = all(&b).await;
    for (made, came) in made.iter().zip(&came) {
        assert!(came.came() > 0);
        assert_eq!(made.id(), came.id());
        assert_eq!(made.lines, came.lines);
        assert!(came.result.phases.get(Phase::Fetch).is_some());
        assert!(came.result.saved.is_some());
        assert_eq!(a.store.walk(&made.id()), b.store.walk(&came.id()));
    }
    let entries = |machine: &Machine| {
        let entries = machine.engine.registry().entries().unwrap();
        let what = entries.into_iter().map(|entry| {
            let components = machine.engine.registry().components(&entry.key).unwrap();
            (
                entry.key,
                entry.snapshot,
                entry.parent,
                entry.output_bytes,
                entry.cost,
                components,
            )
        });
        what.collect::<Vec<_>>()
    };
    assert_eq!(entries(&a), entries(&b));
    // From now on it is a result of that machine.
    let asked = place.asked.load(Ordering::Relaxed);
    for step in all(&b).await {
        assert!(step.result.cached && step.result.remote.is_none());
    }
    assert_eq!(place.asked.load(Ordering::Relaxed), asked);
    assert_eq!(b.notices(), [""; 0]);
    b.publish_all().await;
    b.assert_clean();
    a.assert_clean();
}

trait Walk {
    fn walk(&self, id: &hm_vm::SnapshotId) -> Vec<String>;
}

impl Walk for hm_vm::store::Store {
    /// Paths, kinds, modes and sizes.
    fn walk(&self, id: &hm_vm::SnapshotId) -> Vec<String> {
        let view = self.view(id).unwrap();
        let entries = view.walk().unwrap();
        entries
            .iter()
            .map(|entry| format!("{} {:?}", entry.path.display(), entry.metadata))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_the_middle_is_enough() {
    let world = require!(World::new());
    let place = Memory::new();
    let a = world.machine("a", &place);
    let made = all(&a).await;
    a.publish_all().await;
    // The last one alone, on a machine that never had its parents.
    let b = world.machine("b", &place);
    let key = a.engine.registry().key_of(&made[2].id()).unwrap().unwrap();
    let entries = b.cache.look(&["none".into(), key.clone()]).await;
    assert_eq!(entries[0], None);
    let entry = entries[1].as_ref().unwrap();
    assert_eq!(entry.parent, Some(made[1].id()));
    let (cancel, progress) = (hm_vm::Cancellation::new(), hm_vm::Progress::new());
    let fetched = b
        .cache
        .fetch(&key, &cancel, &progress)
        .await
        .unwrap()
        .unwrap();
    assert!(fetched.is_new && fetched.entry == *entry);
    assert!(fetched.log.is_none());
    assert_eq!(a.store.walk(&made[2].id()), b.store.walk(&made[2].id()));
    // A machine that has it takes nothing.
    let again = b
        .cache
        .fetch(&key, &cancel, &progress)
        .await
        .unwrap()
        .unwrap();
    assert!(!again.is_new && again.bytes == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_to_be_shared_is() {
    let world = require!(World::new());
    let place = Memory::new();
    let quiet = |place: &Memory| {
        let (asked, written) = (&place.asked, &place.written);
        (
            asked.swap(0, Ordering::Relaxed),
            written.swap(0, Ordering::Relaxed),
        )
    };
    // Read only: asked, and not written.
    let reader = world.machine_with("reader", &place, |options| {
        options.mode = CacheMode::ReadOnly;
    });
    reader.step(None, "echo r > /r").await.ran();
    assert_eq!(reader.publish_all().await, Default::default());
    assert_eq!(quiet(&place), (1, 0));
    // Not cached: neither.
    let a = world.machine("a", &place);
    let uncached = action(None, "echo u > /u");
    a.engine
        .execute(uncached, CachingPolicy::None, &NullSink)
        .await
        .unwrap();
    a.publish_all().await;
    assert_eq!(quiet(&place), (0, 0));
    // Failed: asked, and not written.
    let failed = a.step(None, "false").await;
    assert_eq!(failed.result.exit_code, 1);
    a.publish_all().await;
    assert_eq!(quiet(&place), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_does_not_ask_and_replaces() {
    let world = require!(World::new());
    let place = Memory::new();
    let a = world.machine("a", &place);
    let first = a.step(None, "date > /date").await;
    a.publish_all().await;
    let refresh = || ExecuteOptions {
        refresh: true,
        ..ExecuteOptions::default()
    };
    let b = world.machine("b", &place);
    place.asked.store(0, Ordering::Relaxed);
    let second = b.step_with(None, "date > /date", refresh()).await;
    second.ran();
    assert_ne!(first.id(), second.id());
    let report = b.publish_all().await;
    assert_eq!(report.published, 1);
    let c = world.machine("c", &place);
    let third = c.step(None, "date > /date").await;
    third.came();
    assert_eq!(third.id(), second.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_for_hits_hold_for_those_from_elsewhere() {
    let world = require!(World::new());
    let place = Memory::new();
    let a = world.machine("a", &place);
    a.step(None, "echo 1 > /f").await;
    a.publish_all().await;
    let b = world.machine("b", &place);
    let young = ExecuteOptions {
        max_age: Some(Duration::ZERO),
        ..ExecuteOptions::default()
    };
    place.read.store(0, Ordering::Relaxed);
    b.step_with(None, "echo 1 > /f", young).await.ran();
    // What is not wanted is not fetched.
    assert_eq!(place.read.load(Ordering::Relaxed), 0);
    let c = world.machine("c", &place);
    let before = SystemTime::now();
    let step = c.step(None, "echo 1 > /f").await;
    step.came();
    let entry = &c.engine.registry().entries().unwrap()[0];
    assert!(entry.created < before, "it has the age that it has");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_ones_own_on_another_image_is_another_result() {
    let world = require!(World::new());
    let place = Memory::new();
    let a = world.machine("a", &place);
    let run = async |machine: &Machine| {
        let options = ExecuteOptions::default();
        machine
            .run(action(None, "echo 1 > /f"), "mine", options)
            .await
    };
    run(&a).await.ran();
    a.publish_all().await;
    let b = world.machine("b", &place);
    run(&b).await.came();
    let c = world.machine("c", &place);
    // The other image is here too, but under another name.
    let image = world.root.join("image");
    c.store.import_image(&image, "same").unwrap();
    std::fs::write(image.join("marker"), "another").unwrap();
    c.store.import_image(&image, "busybox").unwrap();
    run(&c).await.ran();
    c.assert_clean();
}
