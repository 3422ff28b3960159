//! Dropping the future of an execution, at every await.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use hm_vm::{Action, CachingPolicy, ImageSource, NullSink};

use super::support::{Bench, action, cache, settle};

/// Polls an execution `polls` times and drops it. Returns whether it got to its end.
fn poll_and_drop(bench: &Bench, polls: usize, action: Action, policy: CachingPolicy) -> bool {
    let mut execution = pin!(bench.engine.execute(action, policy, &NullSink));
    (0..polls).any(|_| {
        execution
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    })
}

/// Drops an execution at each of its awaits in turn, in a world made by `prepare`.
async fn at_every_await<F: Future<Output = Bench>>(
    prepare: impl Fn() -> F,
    action: impl Fn(&Bench) -> Action,
    policy: &CachingPolicy,
) {
    for polls in 0.. {
        assert!(polls < 100, "the execution does not end");
        let bench = prepare().await;
        let done = poll_and_drop(&bench, polls, action(&bench), policy.clone());
        settle().await;
        if done {
            // At least: create or restore, exec, snapshot, destroy, each with one await.
            assert!(polls > 4, "too few awaits were met");
            return;
        }
        bench.assert_clean(&format!("dropped after {polls} polls"));
        // And the key can be produced by the next one.
        let next = action(&bench);
        bench
            .engine
            .execute(next, cache("k"), &NullSink)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn of_a_cached_execution() {
    let prepare = || async { Bench::new() };
    at_every_await(prepare, |_| action("echo hello"), &cache("k")).await;
}

#[tokio::test]
async fn of_an_uncached_execution() {
    let prepare = || async { Bench::new() };
    at_every_await(prepare, |_| action("echo hello"), &CachingPolicy::None).await;
}

#[tokio::test]
async fn of_a_fork_that_replaces_and_evicts() {
    let prepare = || async {
        let bench = Bench::with_capacity(1);
        let parent = action("echo parent");
        bench
            .engine
            .execute(parent, cache("parent"), &NullSink)
            .await
            .unwrap();
        bench
    };
    let fork = |bench: &Bench| Action {
        source: ImageSource::Snapshot(bench.engine.registry().all_snapshot_ids().remove(0)),
        ..action("echo child")
    };
    at_every_await(prepare, fork, &cache("child")).await;
}

#[tokio::test]
async fn outside_of_the_runtime() {
    let bench = Bench::new();
    let parked = bench.backend.failpoints().park("exec");
    let (engine, backend) = (bench.engine.clone(), bench.backend.clone());
    let mut execution =
        Box::pin(async move { engine.execute(action("true"), cache("k"), &NullSink).await });
    while parked.waiting() == 0 {
        let polled = execution
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        tokio::task::yield_now().await;
    }
    std::thread::spawn(move || drop(execution)).join().unwrap();
    settle().await;
    assert!(backend.live_vms().is_empty());
    bench.assert_clean("dropped on a thread without a runtime");
}
