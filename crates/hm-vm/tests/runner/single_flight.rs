//! Of several executions of one key, one runs.

use std::sync::Arc;

use hm_vm::{CancelCause, Cancellation, Error, Event, ExecuteOptions, HmVm, NullSink, Phase};
use tokio::task::JoinHandle;

use super::support::{Bench, Events, action, cache, settle};

type Run = JoinHandle<anyhow::Result<hm_vm::ExecutionResult>>;

fn start(engine: &Arc<HmVm>, events: &Arc<Events>) -> Run {
    let engine = Arc::clone(engine);
    let options = ExecuteOptions {
        events: Some(events.clone()),
        ..ExecuteOptions::default()
    };
    tokio::spawn(async move {
        engine
            .execute_with(action("true"), cache("k"), &NullSink, options)
            .await
    })
}

async fn followers(engines: &[&Arc<HmVm>]) -> Vec<Run> {
    let mut runs = Vec::new();
    for engine in engines {
        let events = Arc::new(Events::default());
        runs.push(start(engine, &events));
        events.until(&Event::Started(Phase::Wait)).await;
    }
    runs
}

#[tokio::test]
async fn in_one_process_the_others_get_a_hit() {
    let bench = Bench::new();
    let parked = bench.backend.failpoints().park("exec");
    let leader = start(&bench.engine, &Arc::default());
    parked.reached(1).await;
    let second = bench.second_engine();
    let runs = followers(&[&bench.engine, &bench.engine, &second, &bench.engine]).await;
    parked.release();
    let led = leader.await.unwrap().unwrap();
    assert!(!led.cached);
    for run in runs {
        let result = run.await.unwrap().unwrap();
        assert!(result.cached);
        assert_eq!(result.snapshot, led.snapshot);
        assert!(result.phases.get(Phase::Wait).is_some());
    }
    assert_eq!(bench.backend.counts().exec, 1);
    bench.assert_clean("after all");
}

#[tokio::test]
async fn a_leader_that_fails_hands_over() {
    let bench = Bench::new();
    let parked = bench.backend.failpoints().park("exec");
    bench.backend.failpoints().fail_once("exec", "broken");
    let leader = start(&bench.engine, &Arc::default());
    parked.reached(1).await;
    let runs = followers(&[&bench.engine, &bench.engine]).await;
    parked.release();
    assert!(leader.await.unwrap().is_err());
    let mut cached = Vec::new();
    for run in runs {
        cached.push(run.await.unwrap().unwrap().cached);
    }
    assert_eq!(cached, [false, true]);
    assert_eq!(bench.backend.counts().exec, 2);
}

#[tokio::test]
async fn a_leader_that_is_dropped_hands_over() {
    let bench = Bench::new();
    let parked = bench.backend.failpoints().park("exec");
    let leader = start(&bench.engine, &Arc::default());
    parked.reached(1).await;
    let runs = followers(&[&bench.second_engine()]).await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    parked.release();
    for run in runs {
        assert!(!run.await.unwrap().unwrap().cached);
    }
    bench.assert_clean("after the hand-over");
}

#[tokio::test]
async fn waiting_can_be_cancelled() {
    let bench = Bench::new();
    let parked = bench.backend.failpoints().park("exec");
    let leader = start(&bench.engine, &Arc::default());
    parked.reached(1).await;
    for engine in [bench.engine.clone(), bench.second_engine()] {
        let (cancel, events) = (Cancellation::new(), Arc::new(Events::default()));
        let options = ExecuteOptions {
            cancel: Some(cancel.clone()),
            events: Some(events.clone()),
            ..ExecuteOptions::default()
        };
        let waiter = tokio::spawn(async move {
            engine
                .execute_with(action("true"), cache("k"), &NullSink, options)
                .await
        });
        events.until(&Event::Started(Phase::Wait)).await;
        cancel.cancel(CancelCause::User);
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(
            error.downcast_ref(),
            Some(&Error::Cancelled {
                cause: CancelCause::User
            })
        );
    }
    parked.release();
    assert!(!leader.await.unwrap().unwrap().cached);
}

#[tokio::test]
async fn other_keys_and_uncached_runs_do_not_wait() {
    let bench = Bench::new();
    let parked = bench.backend.failpoints().park("exec");
    let runs: Vec<_> = ["a", "b"]
        .map(|key| {
            let engine = bench.engine.clone();
            tokio::spawn(async move { engine.execute(action("true"), cache(key), &NullSink).await })
        })
        .into();
    parked.reached(2).await;
    parked.release();
    for run in runs {
        run.await.unwrap().unwrap();
    }
    settle().await;
    bench.assert_clean("after both");
}
