//! A VM that goes from one execution to the next.

use std::sync::Arc;

use hm_vm::{
    Action, CachingPolicy, ExecuteOptions, ExecutionResult, ImageSource, NullSink, Phase,
    SnapshotId, VmConfig, VmHandover, VmSlot,
};

use super::support::{Bench, Events, action, cache, settle};

fn handover(take: Option<&VmSlot>, leave: Option<&VmSlot>) -> ExecuteOptions {
    ExecuteOptions {
        vm: VmHandover {
            take: take.cloned(),
            leave: leave.cloned(),
        },
        ..ExecuteOptions::default()
    }
}

fn fork(snapshot: &Option<SnapshotId>, cmd: &str) -> Action {
    Action {
        source: ImageSource::Snapshot(snapshot.clone().unwrap()),
        ..action(cmd)
    }
}

async fn execute(
    bench: &Bench,
    action: Action,
    key: &str,
    options: ExecuteOptions,
) -> ExecutionResult {
    let run = bench
        .engine
        .execute_with(action, cache(key), &NullSink, options);
    run.await.unwrap()
}

#[tokio::test]
async fn a_chain_goes_on_in_one_vm() {
    let bench = Bench::new();
    let slot = VmSlot::default();
    let both = || handover(Some(&slot), Some(&slot));
    let mut last = execute(&bench, action("echo 0 > /0"), "0", both()).await;
    for step in 1..5 {
        assert!(!slot.is_empty());
        let cmd = format!("test -e /{} && echo {step} > /{step}", step - 1);
        last = execute(
            &bench,
            fork(&last.snapshot, &cmd),
            &step.to_string(),
            both(),
        )
        .await;
        assert_eq!(last.exit_code, 0);
        assert_eq!(last.phases.get(Phase::Restore), None);
        assert_eq!(last.phases.get(Phase::Destroy), None);
        let entry = bench.engine.registry().entry(&step.to_string()).unwrap();
        assert!(entry.unwrap().parent.is_some());
    }
    let counts = bench.backend.counts();
    assert_eq!((counts.create, counts.restore, counts.snapshot), (1, 0, 5));
    // The snapshots are those of separate VMs.
    let check = fork(&last.snapshot, "test -e /0 && test -e /4");
    let checked = execute(&bench, check, "check", handover(None, None)).await;
    assert_eq!(checked.exit_code, 0);
    drop(slot);
    settle().await;
    bench.assert_clean("the slot is gone");
    let counts = bench.backend.counts();
    assert_eq!((counts.destroy, counts.dropped), (2, 0));
}

#[tokio::test]
async fn an_uncached_step_hands_over_as_well() {
    let bench = Bench::new();
    let slot = VmSlot::default();
    let first = bench
        .engine
        .execute_with(
            action("echo x > /x"),
            CachingPolicy::None,
            &NullSink,
            handover(None, Some(&slot)),
        )
        .await
        .unwrap();
    let second = bench
        .engine
        .execute_with(
            fork(&first.snapshot, "test -e /x"),
            CachingPolicy::None,
            &NullSink,
            ExecuteOptions {
                no_snapshot: true,
                ..handover(Some(&slot), Some(&slot))
            },
        )
        .await
        .unwrap();
    assert_eq!((second.exit_code, second.snapshot), (0, None));
    assert!(
        slot.is_empty(),
        "without a snapshot there is nothing to hand over"
    );
    bench
        .engine
        .remove_snapshot(&first.snapshot.unwrap())
        .await
        .unwrap();
    assert_eq!(bench.backend.counts().restore, 0);
    bench.assert_clean("at the end");
}

/// Leaves the VM of a first step in the slot, and returns its snapshot.
async fn left(bench: &Bench, slot: &VmSlot) -> Option<SnapshotId> {
    let options = handover(None, Some(slot));
    execute(bench, action("echo x > /x"), "first", options)
        .await
        .snapshot
}

#[tokio::test]
async fn a_vm_of_another_state_or_config_is_ended() {
    let bench = Bench::new();
    let slot = VmSlot::default();
    let other = execute(&bench, action("true"), "other", handover(None, None)).await;
    let first = left(&bench, &slot).await;
    for (number, case) in ["state", "image", "config", "engine"]
        .into_iter()
        .enumerate()
    {
        if slot.is_empty() {
            let again = ExecuteOptions {
                refresh: true,
                ..handover(None, Some(&slot))
            };
            execute(&bench, action("echo x > /x"), "again", again).await;
        }
        let first = match bench.engine.registry().entry("again").unwrap() {
            Some(entry) => Some(entry.snapshot),
            None => first.clone(),
        };
        let mut options = handover(Some(&slot), None);
        let action = match case {
            "state" => fork(&other.snapshot, "true"),
            "image" => action("true"),
            _ => fork(&first, "true"),
        };
        if case == "config" {
            // A protection that may be missing: the fake has none.
            options.config = Some(VmConfig {
                allow_weaker: vec![hm_vm::Protection::Seccomp],
                ..VmConfig::default()
            });
        }
        let engine = match case {
            "engine" => bench.second_engine(),
            _ => bench.engine.clone(),
        };
        let run = engine.execute_with(action, cache(case), &NullSink, options);
        let result = run.await.unwrap();
        assert!(slot.is_empty(), "{case}");
        assert!(!result.cached, "{case}");
        let made = result.phases.get(Phase::Restore).is_some()
            || result.phases.get(Phase::Create).is_some();
        assert!(made, "{case}");
        assert_eq!(bench.backend.counts().dropped, 0, "{case} {number}");
        bench.assert_clean(case);
    }
}

#[tokio::test]
async fn hits_failures_and_errors_leave_no_vm() {
    let bench = Bench::new();
    let slot = VmSlot::default();
    let both = || handover(Some(&slot), Some(&slot));
    // A hit.
    left(&bench, &slot).await;
    let hit = execute(&bench, action("true"), "first", both()).await;
    assert!(hit.cached && slot.is_empty());
    bench.assert_clean("after the hit");
    // A command that fails.
    bench.engine.registry().invalidate("first");
    let first = left(&bench, &slot).await;
    let failed = execute(&bench, fork(&first, "exit 3"), "k", both()).await;
    assert_eq!(failed.exit_code, 3);
    assert!(slot.is_empty());
    // Its retry does not find a spoilt VM.
    let retried = execute(&bench, fork(&first, "test -e /x"), "k", both()).await;
    assert_eq!(retried.exit_code, 0);
    assert!(retried.phases.get(Phase::Restore).is_some());
    // An error before a VM is needed.
    let cancel = hm_vm::Cancellation::new();
    cancel.cancel(hm_vm::CancelCause::User);
    let options = ExecuteOptions {
        cancel: Some(cancel),
        ..both()
    };
    let run = bench
        .engine
        .execute_with(action("true"), cache("new"), &NullSink, options);
    run.await.unwrap_err();
    assert!(slot.is_empty());
    // An error of the snapshot.
    let events = Arc::new(Events::default());
    let options = ExecuteOptions {
        events: Some(events.clone()),
        ..both()
    };
    bench.backend.failpoints().fail_once("snapshot", "no space");
    let run = bench
        .engine
        .execute_with(action("true"), cache("new"), &NullSink, options);
    run.await.unwrap_err();
    assert!(slot.is_empty() && events.notices().is_empty());
    assert!(bench.backend.live_vms().is_empty());
    assert_eq!(bench.backend.counts().dropped, 0);
}

#[tokio::test]
async fn a_vm_with_a_limited_disk_is_not_handed_over() {
    let bench = Bench::new();
    bench.backend.set_capabilities(hm_vm::Capabilities {
        limits: vec![hm_vm::Limit::Disk],
        networks: vec![hm_vm::NetworkPolicy::None],
        ..hm_vm::Capabilities::default()
    });
    let slot = VmSlot::default();
    let options = ExecuteOptions {
        config: Some(VmConfig {
            disk_size_gb: Some(1),
            ..VmConfig::default()
        }),
        ..handover(None, Some(&slot))
    };
    execute(&bench, action("true"), "k", options).await;
    assert!(slot.is_empty());
    bench.assert_clean("after the step");
}

#[tokio::test]
async fn a_vm_left_twice_replaces_the_first() {
    let bench = Bench::new();
    let slot = VmSlot::default();
    left(&bench, &slot).await;
    execute(&bench, action("true"), "k", handover(None, Some(&slot))).await;
    settle().await;
    assert_eq!(bench.backend.live_vms().len(), 1);
    let clone = slot.clone();
    drop(slot);
    assert!(!clone.is_empty(), "clones are the same place");
    std::thread::spawn(move || drop(clone)).join().unwrap();
    settle().await;
    bench.assert_clean("dropped on another thread");
}

#[tokio::test]
async fn an_execution_dropped_anywhere_leaves_no_vm() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};
    for polls in 0.. {
        let bench = Bench::new();
        let slot = VmSlot::default();
        let first = left(&bench, &slot).await;
        let done = {
            let options = handover(Some(&slot), Some(&slot));
            let fork = fork(&first, "echo y");
            let execution = bench
                .engine
                .execute_with(fork, cache("k"), &NullSink, options);
            let mut execution = pin!(execution);
            (0..polls).any(|_| {
                execution
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_ready()
            })
        };
        drop(slot);
        settle().await;
        bench.assert_clean(&format!("dropped after {polls} polls"));
        if done {
            return;
        }
    }
}
