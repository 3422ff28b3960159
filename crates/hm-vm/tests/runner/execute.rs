//! One execution, from the look-up to the end of the VM.

use std::sync::Arc;
use std::time::Duration;

use hm_vm::{
    Action, CachingPolicy, CancelCause, Cancellation, Error, Event, ExecuteOptions, ImageSource,
    KeyBase, NullSink, Phase, SnapshotId, SnapshotLabel,
};
use hm_vm_testkit::fake::Call;

use super::support::{Bench, Events, action, cache};

fn with_events(events: &Arc<Events>) -> ExecuteOptions {
    ExecuteOptions {
        events: Some(events.clone()),
        ..ExecuteOptions::default()
    }
}

#[tokio::test]
async fn phases_are_told_in_order_and_timed() {
    let bench = Bench::new();
    let inject = tempfile::tempdir().unwrap();
    let events = Arc::new(Events::default());
    let action = Action {
        inject: Some(inject.path().to_owned()),
        working_dir: "/src".into(),
        ..action("true")
    };
    let result = bench
        .engine
        .execute_with(action, cache("k"), &NullSink, with_events(&events))
        .await
        .unwrap();
    let expected = [
        Phase::Lookup,
        Phase::Create,
        Phase::Inject,
        Phase::Exec,
        Phase::Snapshot,
        Phase::Publish,
        Phase::Destroy,
    ];
    let timed: Vec<Phase> = result.phases.iter().map(|(phase, _)| phase).collect();
    assert_eq!(timed, expected);
    let mut told = Vec::new();
    for pair in events.all().chunks(2) {
        match pair {
            [Event::Started(phase), Event::Ended { phase: ended, .. }] => {
                assert_eq!(phase, ended);
                told.push(*phase);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, expected);
    assert!(result.usage.is_some());
}

#[tokio::test]
async fn every_failing_phase_destroys_the_vm_and_poisons_nothing() {
    for point in [
        "create",
        "create.done",
        "inject",
        "inject.done",
        "exec",
        "exec.done",
        "snapshot",
        "snapshot.done",
    ] {
        let bench = Bench::new();
        let inject = tempfile::tempdir().unwrap();
        let action = Action {
            inject: Some(inject.path().to_owned()),
            ..action("true")
        };
        bench.backend.failpoints().fail_once(point, "broken");
        let failed = bench
            .engine
            .execute(action.clone(), cache("k"), &NullSink)
            .await;
        assert_eq!(failed.unwrap_err().to_string(), "broken", "{point}");
        bench.assert_clean(point);
        assert_eq!(bench.engine.registry().len(), 0, "{point}");
        let next = bench
            .engine
            .execute(action, cache("k"), &NullSink)
            .await
            .unwrap();
        assert!(!next.cached, "{point}");
    }
}

#[tokio::test]
async fn a_failing_destroy_is_a_notice() {
    let bench = Bench::new();
    let events = Arc::new(Events::default());
    bench.backend.failpoints().fail_once("destroy", "stuck");
    let result = bench
        .engine
        .execute_with(action("true"), cache("k"), &NullSink, with_events(&events))
        .await
        .unwrap();
    assert!(result.snapshot.is_some());
    assert!(events.notices()[0].contains("stuck"));
    bench.assert_clean("dropping frees what destroy did not");
}

#[tokio::test]
async fn when_the_backend_cannot_tell_a_hit_is_a_miss_and_the_entry_stays() {
    let bench = Bench::new();
    let events = Arc::new(Events::default());
    bench
        .engine
        .execute(action("true"), cache("k"), &NullSink)
        .await
        .unwrap();
    bench
        .backend
        .failpoints()
        .fail_always("snapshot_exists", "no answer");
    bench.backend.failpoints().fail_once("exec", "broken");
    let failed = bench
        .engine
        .execute_with(action("true"), cache("k"), &NullSink, with_events(&events))
        .await;
    assert!(failed.is_err());
    assert_eq!(events.notices().len(), 1, "{:?}", events.notices());
    assert_eq!(bench.engine.registry().len(), 1, "the entry is still there");
    let again = bench
        .engine
        .execute(action("true"), cache("k"), &NullSink)
        .await
        .unwrap();
    assert!(!again.cached);
    bench.assert_clean("the old snapshot is removed");
}

#[tokio::test]
async fn a_lost_snapshot_is_forgotten() {
    let bench = Bench::new();
    let first = bench
        .engine
        .execute(action("echo x"), cache("k"), &NullSink)
        .await
        .unwrap();
    bench.backend.lose_snapshot(&first.snapshot.unwrap());
    bench.backend.failpoints().fail_once("exec", "broken");
    bench
        .engine
        .execute(action("echo x"), cache("k"), &NullSink)
        .await
        .unwrap_err();
    assert!(bench.engine.registry().is_empty());
    assert!(bench.files("logs").is_empty());
}

#[tokio::test]
async fn a_failed_removal_is_tried_again_by_the_next_execution() {
    let bench = Bench::with_capacity(1);
    bench
        .engine
        .execute(action("true"), cache("a"), &NullSink)
        .await
        .unwrap();
    let events = Arc::new(Events::default());
    bench
        .backend
        .failpoints()
        .fail_once("remove_snapshot", "in use");
    let result = bench
        .engine
        .execute_with(action("true"), cache("b"), &NullSink, with_events(&events))
        .await;
    assert!(result.is_ok());
    assert!(events.notices()[0].contains("in use"));
    assert_eq!(bench.backend.snapshots().len(), 2);
    bench
        .engine
        .execute(action("true"), cache("c"), &NullSink)
        .await
        .unwrap();
    bench.assert_clean("after the retry");
}

#[tokio::test]
async fn a_full_registry_leaves_no_snapshot_without_an_owner() {
    let bench = Bench::new();
    let raw = rusqlite::Connection::open(bench.registry_path()).unwrap();
    raw.execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    .unwrap();
    let error = bench
        .engine
        .execute(action("echo x"), cache("k"), &NullSink)
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("full"), "{error:#}");
    assert!(bench.backend.snapshots().is_empty());
    bench.assert_clean("after the failure");
}

#[tokio::test]
async fn a_busy_registry_is_waited_for() {
    let bench = Bench::new();
    for round in 0..2 {
        let raw = rusqlite::Connection::open(bench.registry_path()).unwrap();
        raw.execute_batch("BEGIN IMMEDIATE").unwrap();
        let engine = bench.engine.clone();
        let run =
            tokio::spawn(
                async move { engine.execute(action("true"), cache("k"), &NullSink).await },
            );
        super::support::settle().await;
        assert!(!run.is_finished());
        raw.execute_batch("COMMIT").unwrap();
        assert_eq!(run.await.unwrap().unwrap().cached, round == 1);
    }
    // And when it becomes busy just before the publication.
    let parked = bench.backend.failpoints().park("snapshot");
    let engine = bench.engine.clone();
    let run = tokio::spawn(async move {
        engine
            .execute(action("true"), cache("new"), &NullSink)
            .await
    });
    parked.reached(1).await;
    let raw = rusqlite::Connection::open(bench.registry_path()).unwrap();
    raw.execute_batch("BEGIN IMMEDIATE").unwrap();
    parked.release();
    super::support::settle().await;
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    raw.execute_batch("COMMIT").unwrap();
    // The publication goes on by itself; the next execution sees its result or makes its own.
    bench
        .engine
        .execute(action("true"), cache("new"), &NullSink)
        .await
        .unwrap();
    while bench.engine.registry().len() < 2 {
        tokio::task::yield_now().await;
    }
    super::support::settle().await;
    assert!(bench.backend.live_vms().is_empty());
}

#[tokio::test]
async fn cancelling_in_any_phase_ends_clean() {
    for point in [
        "snapshot_exists",
        "restore",
        "restore.done",
        "exec",
        "exec.done",
        "snapshot",
        "snapshot.done",
    ] {
        let bench = Bench::new();
        let parent = bench
            .engine
            .execute(action("true"), cache("parent"), &NullSink)
            .await;
        let parent = parent.unwrap().snapshot.unwrap();
        let key = if point == "snapshot_exists" {
            "parent"
        } else {
            "k"
        };
        let parked = bench.backend.failpoints().park(point);
        let cancel = Cancellation::new();
        let options = ExecuteOptions {
            cancel: Some(cancel.clone()),
            ..ExecuteOptions::default()
        };
        let (engine, fork) = (
            bench.engine.clone(),
            Action {
                source: ImageSource::Snapshot(parent),
                ..action("echo x")
            },
        );
        let run = tokio::spawn(async move {
            engine
                .execute_with(fork, cache(key), &NullSink, options)
                .await
        });
        parked.reached(1).await;
        cancel.cancel(CancelCause::Sibling("other".into()));
        let error = run.await.unwrap().unwrap_err();
        let cause = CancelCause::Sibling("other".into());
        assert_eq!(
            error.downcast_ref(),
            Some(&Error::Cancelled { cause }),
            "{point}"
        );
        drop(parked);
        super::support::settle().await;
        bench.assert_clean(point);
        assert_eq!(bench.engine.registry().len(), 1, "{point}");
    }
}

#[tokio::test]
async fn a_cancelled_token_stops_before_anything_is_called() {
    let bench = Bench::new();
    let cancel = Cancellation::new();
    cancel.cancel(CancelCause::Timeout(Duration::from_secs(5)));
    for policy in [CachingPolicy::None, cache("k")] {
        let options = ExecuteOptions {
            cancel: Some(cancel.clone()),
            ..ExecuteOptions::default()
        };
        let run = bench
            .engine
            .execute_with(action("true"), policy, &NullSink, options);
        let error = run.await.unwrap_err();
        let limit = Duration::from_secs(5);
        assert_eq!(error.downcast_ref(), Some(&Error::TimedOut { limit }));
    }
    assert!(bench.backend.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_counts_from_the_command_and_gives_it_its_grace() {
    let bench = Bench::new();
    let limit = Duration::from_secs(3);
    let slow = Action {
        timeout: Some(limit),
        ..action("trap 'sleep 4; echo cleaned up' TERM; sleep 1000")
    };
    let lines = super::support::Lines::default();
    let start = tokio::time::Instant::now();
    let error = bench
        .engine
        .execute(slow.clone(), cache("k"), &lines)
        .await
        .unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Error::TimedOut { limit }));
    assert_eq!(start.elapsed().as_secs(), 7);
    assert_eq!(lines.take(), ["out cleaned up"]);
    // A kill skips the grace period.
    let cancel = Cancellation::new();
    let options = ExecuteOptions {
        cancel: Some(cancel.clone()),
        ..ExecuteOptions::default()
    };
    let (engine, start) = (bench.engine.clone(), tokio::time::Instant::now());
    let run = tokio::spawn(async move {
        engine
            .execute_with(slow, cache("k"), &NullSink, options)
            .await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    cancel.cancel(CancelCause::User);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cancel.kill(CancelCause::User);
    let error = run.await.unwrap().unwrap_err();
    let cause = CancelCause::User;
    assert_eq!(error.downcast_ref(), Some(&Error::Cancelled { cause }));
    assert_eq!(start.elapsed().as_secs(), 2);
    bench.assert_clean("after both");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_ends_within_its_time_is_not_touched() {
    let bench = Bench::new();
    let quick = Action {
        timeout: Some(Duration::from_secs(3)),
        ..action("sleep 2")
    };
    let result = bench
        .engine
        .execute(quick, CachingPolicy::None, &NullSink)
        .await
        .unwrap();
    assert_eq!(result.exit_code, 0);
    bench
        .engine
        .remove_snapshot(&result.snapshot.unwrap())
        .await
        .unwrap();
    bench.assert_clean("after the removal");
}

#[tokio::test]
async fn a_failed_command_can_be_kept() {
    let bench = Bench::new();
    let keep = || ExecuteOptions {
        keep_failed: true,
        ..ExecuteOptions::default()
    };
    let run = bench
        .engine
        .execute_with(action("exit 3"), cache("k"), &NullSink, keep());
    let result = run.await.unwrap();
    assert_eq!((result.exit_code, &result.snapshot), (3, &None));
    let kept = result.kept.unwrap();
    assert_eq!(
        bench.backend.snapshots(),
        [(kept.clone(), SnapshotLabel::Ephemeral)]
    );
    bench.engine.remove_snapshot(&kept).await.unwrap();
    bench.backend.failpoints().fail_once("snapshot", "no space");
    let run = bench
        .engine
        .execute_with(action("exit 4"), cache("k"), &NullSink, keep());
    let result = run.await.unwrap();
    assert_eq!((result.exit_code, result.kept), (4, None));
    let run = bench
        .engine
        .execute_with(action("true"), cache("k"), &NullSink, keep());
    assert_eq!(run.await.unwrap().kept, None);
    bench.assert_clean("at the end");
}

#[tokio::test]
async fn keys_derive_from_content_and_are_kept() {
    let bench = Bench::new();
    let action = Action {
        env: vec![("A".into(), "old".into()), ("A".into(), "new".into())],
        ..action("true")
    };
    let components = bench.engine.derive_key(&action).await.unwrap().unwrap();
    assert_eq!(components.base, KeyBase::ImageDigest("fake:alpine".into()));
    assert_eq!(components.env["A"], "new");
    assert_eq!(components.extra["backend"], "fake");
    let key = components.key().to_string();
    let options = ExecuteOptions {
        components: Some(components.clone()),
        ..ExecuteOptions::default()
    };
    let run = bench
        .engine
        .execute_with(action.clone(), cache(&key), &NullSink, options);
    let snapshot = run.await.unwrap().snapshot.unwrap();
    let registry = bench.engine.registry();
    assert_eq!(registry.components(&key).unwrap(), Some(components));
    assert_eq!(registry.resolve_key(&key[..12]).unwrap(), key);
    assert!(registry.resolve_key("hm1-no").is_err());

    let child = |snapshot: &SnapshotId| Action {
        source: ImageSource::Snapshot(snapshot.clone()),
        ..action.clone()
    };
    let of_child = bench
        .engine
        .derive_key(&child(&snapshot))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(of_child.base, KeyBase::ParentKey(key));
    let stray = SnapshotId::new("stray");
    let of_stray = bench
        .engine
        .derive_key(&child(&stray))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(of_stray.base, KeyBase::Snapshot("stray".into()));

    bench.backend.set_image_digest("alpine", None);
    assert_eq!(bench.engine.derive_key(&action).await.unwrap(), None);
}

#[tokio::test]
async fn a_hit_calls_nothing_but_snapshot_exists() {
    let bench = Bench::new();
    let first = bench
        .engine
        .execute(action("true"), cache("k"), &NullSink)
        .await
        .unwrap();
    let before = bench.backend.calls().len();
    let second = bench
        .engine
        .execute(action("true"), cache("k"), &NullSink)
        .await
        .unwrap();
    assert!(second.cached);
    let snapshot = first.snapshot.unwrap();
    assert_eq!(
        bench.backend.calls()[before..],
        [Call::SnapshotExists { snapshot }]
    );
    assert_eq!(bench.engine.registry().entry("k").unwrap().unwrap().hits, 1);
}
