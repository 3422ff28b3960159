//! A shared cache that is down, hangs, is full, or in the way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hm_vm::remote::RemoteCache as _;
use hm_vm::{CachingPolicy, CancelCause, Cancellation, Error, ExecuteOptions, NullSink};
use hm_vm_testkit::require;

use super::memory::{Fault, Memory};
use super::{World, action};

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_down_is_given_up_with_a_warning() {
    let world = require!(World::new());
    let place = Memory::new();
    place.set(Fault::Down);
    let a = world.machine("a", &place);
    for number in 0..8 {
        a.step(None, &format!("echo {number} > /f")).await.ran();
    }
    assert_eq!(
        place.asked.load(Ordering::Relaxed),
        6,
        "3 lookups, 3 publications"
    );
    let report = a.publish_all().await;
    assert_eq!((report.published, report.failed.len()), (0, 8));
    let notices = a.notices();
    assert_eq!(notices.len(), 4, "{notices:?}");
    assert!(
        notices
            .iter()
            .any(|notice| notice.contains("nobody answers"))
    );
    assert!(
        notices
            .iter()
            .any(|notice| notice.contains("not asked any more"))
    );
    assert!(
        notices
            .iter()
            .any(|notice| notice.contains("not given results any more"))
    );
    a.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_costs_a_bounded_time() {
    let world = require!(World::new());
    let place = Memory::new();
    place.set(Fault::HangingManifests);
    let a = world.machine_with("a", &place, |options| {
        options.lookup_time = Duration::from_millis(50);
        options.mode = hm_vm::remote::CacheMode::ReadOnly;
    });
    for number in 0..5 {
        a.step(None, &format!("echo {number} > /f")).await.ran();
    }
    assert_eq!(place.asked.load(Ordering::Relaxed), 3);
    assert_eq!(a.notices().len(), 2);
    // What hangs is not waited for.
    place.set(Fault::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_hangs_is_given_up() {
    let world = require!(World::new());
    let place = Memory::new();
    let a = world.machine("a", &place);
    a.step(None, "echo 1 > /f").await;
    a.publish_all().await;
    place.set(Fault::HangingBlobs);
    let b = world.machine_with("b", &place, |options| {
        options.fetch_time = Duration::from_millis(50);
        options.slowest = u64::MAX;
        options.mode = hm_vm::remote::CacheMode::ReadOnly;
    });
    b.step(None, "echo 1 > /f").await.ran();
    assert_eq!(b.notices().len(), 1);
    place.set(Fault::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_fetch_ends_the_execution_and_leaves_nothing() {
    let world = require!(World::new());
    let place = Memory::new();
    let a = world.machine("a", &place);
    let made = a.step(None, "echo 1 > /f").await;
    let key = a.engine.registry().key_of(&made.id()).unwrap().unwrap();
    a.publish_all().await;
    place.set(Fault::HangingBlobs);
    place.read.store(0, Ordering::Relaxed);
    let b = world.machine("b", &place);
    let cancel = Cancellation::new();
    let options = ExecuteOptions {
        cancel: Some(cancel.clone()),
        ..ExecuteOptions::default()
    };
    let policy = CachingPolicy::Cache { key };
    let run = b
        .engine
        .execute_with(action(None, "echo 1 > /f"), policy, &NullSink, options);
    let stop = async {
        while place.read.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        cancel.cancel(CancelCause::User);
    };
    let (result, ()) = tokio::join!(run, stop);
    let error = result.unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(Error::Cancelled { .. })),
        "{error}"
    );
    place.set(Fault::None);
    // The thread that was reading ends by itself.
    let began = std::time::Instant::now();
    while b.store.stats().unwrap().layers > 1 && began.elapsed() < super::PATIENCE {
        tokio::task::yield_now().await;
    }
    assert!(!b.store.snapshot_exists(&made.id()).unwrap());
    b.step(None, "echo 1 > /f").await.came();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_full_or_forbids_is_not_written_to_any_more() {
    let world = require!(World::new());
    for (fault, expected) in [(Fault::Full, "507"), (Fault::Forbidden, "403")] {
        let place = Memory::new();
        let name = format!("{fault:?}");
        let a = world.machine(&name, &place);
        a.step(None, "echo 0 > /f").await.ran();
        a.publish_all().await;
        place.set(fault);
        for number in 1..5 {
            a.step(None, &format!("echo {number} > /f")).await.ran();
        }
        let report = a.publish_all().await;
        assert_eq!(
            (report.published, report.failed.len()),
            (0, 4),
            "{report:?}"
        );
        assert!(report.failed[0].contains(expected), "{report:?}");
        assert_eq!(a.notices().len(), 2);
        // Asking is another matter.
        let b = world.machine(&format!("{name} b"), &place);
        b.step(None, "echo 0 > /f").await.came();
        place.assert_whole();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_before_its_turn_is_left_out() {
    let world = require!(World::new());
    let place = Memory::new();
    place.set(Fault::HangingManifests);
    let a = world.machine_with("a", &place, |options| {
        options.lookup_time = Duration::from_millis(1);
        options.failures = 1;
    });
    let first = a.step(None, "echo 1 > /f").await;
    let second = a.step(None, "echo 2 > /f").await;
    a.store.remove_snapshot(&second.id()).unwrap();
    let unfinished = a.cache.finish(Duration::from_millis(1)).await.unfinished;
    assert_eq!(unfinished, 2);
    place.set(Fault::None);
    let report = a.publish_all().await;
    assert_eq!((report.published, report.failed), (1, Vec::new()));
    let (_, manifest) = place.entry();
    let record = String::from_utf8(place.blob(&manifest.config)).unwrap();
    assert!(record.contains(&*first.id()));
    a.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_that_need_a_key_one_fetches_it() {
    let world = require!(World::new());
    let place = Memory::new();
    let a = world.machine("a", &place);
    a.step(None, "echo 1 > /f").await;
    a.publish_all().await;
    place.read.store(0, Ordering::Relaxed);
    let b = Arc::new(world.machine("b", &place));
    let runs: Vec<_> = (0..8)
        .map(|_| {
            let b = Arc::clone(&b);
            tokio::spawn(async move { b.step(None, "echo 1 > /f").await })
        })
        .collect();
    let mut remote = 0;
    for run in runs {
        let step = run.await.unwrap();
        assert!(step.result.cached);
        remote += u32::from(step.result.remote.is_some());
    }
    assert_eq!(remote, 1);
    assert_eq!(place.read.load(Ordering::Relaxed), 1);
}
