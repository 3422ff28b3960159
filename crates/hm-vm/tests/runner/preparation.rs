//! What only a command that really runs needs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hm_vm::{
    CancelCause, Cancellation, Error, ExecuteOptions, NullSink, Preparation, Prepared, Secret,
};

use super::support::{Bench, action, cache};

/// Notes its calls; fails, or never ends, where it is told to.
#[derive(Default)]
struct Noted {
    calls: Mutex<Vec<&'static str>>,
    fails: bool,
    hangs: bool,
}

impl Noted {
    fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl Preparation for Noted {
    async fn prepare(&self) -> anyhow::Result<Prepared> {
        self.calls.lock().unwrap().push("prepare");
        if self.hangs {
            std::future::pending::<()>().await;
        }
        anyhow::ensure!(!self.fails, "cannot be prepared");
        Ok(Prepared {
            secret_env: vec![("PASSWORD".into(), Secret::new(b"hunter2".to_vec()))],
            ..Prepared::default()
        })
    }

    async fn finish(&self) {
        self.calls.lock().unwrap().push("finish");
    }
}

fn options(preparation: &Arc<Noted>) -> ExecuteOptions {
    ExecuteOptions {
        preparation: Some(preparation.clone()),
        ..ExecuteOptions::default()
    }
}

#[tokio::test]
async fn a_command_is_prepared_and_a_hit_is_not() {
    let bench = Bench::new();
    let noted = Arc::new(Noted::default());
    for _ in 0..2 {
        let run =
            bench
                .engine
                .execute_with(action("echo x"), cache("k"), &NullSink, options(&noted));
        run.await.unwrap();
    }
    assert_eq!(noted.calls(), ["prepare", "finish"]);
    bench.assert_clean("a prepared command");
}

#[tokio::test]
async fn a_failed_preparation_is_finished_and_fails_the_execution() {
    let bench = Bench::new();
    let noted = Arc::new(Noted {
        fails: true,
        ..Noted::default()
    });
    let run = bench
        .engine
        .execute_with(action("echo x"), cache("k"), &NullSink, options(&noted));
    assert_eq!(run.await.unwrap_err().to_string(), "cannot be prepared");
    assert_eq!(noted.calls(), ["prepare", "finish"]);
    bench.assert_clean("a failed preparation");
}

#[tokio::test(start_paused = true)]
async fn a_preparation_is_dropped_when_cancelled_and_finished_then() {
    let bench = Bench::new();
    let noted = Arc::new(Noted {
        hangs: true,
        ..Noted::default()
    });
    let cancel = Cancellation::new();
    let options = ExecuteOptions {
        cancel: Some(cancel.clone()),
        ..options(&noted)
    };
    let run = bench
        .engine
        .execute_with(action("echo x"), cache("k"), &NullSink, options);
    let stop = async {
        // Paused time goes on when nothing else can: the preparation hangs then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        cancel.cancel(CancelCause::User);
    };
    let (result, ()) = tokio::join!(run, stop);
    let error = result.unwrap_err();
    assert!(matches!(
        error.downcast_ref(),
        Some(Error::Cancelled { .. })
    ));
    assert_eq!(noted.calls(), ["prepare", "finish"]);
    bench.assert_clean("a cancelled preparation");
}

#[tokio::test]
async fn what_is_prepared_reaches_the_command_and_is_masked() {
    let bench = Bench::new();
    let noted = Arc::new(Noted::default());
    let log = bench.path("log");
    let options = ExecuteOptions {
        log: Some(log.clone()),
        ..options(&noted)
    };
    let run =
        bench
            .engine
            .execute_with(action("echo is $PASSWORD"), cache("k"), &NullSink, options);
    run.await.unwrap();
    let mut reader = hm_vm::output::LogReader::open(&log).unwrap();
    let mut text = Vec::new();
    while let hm_vm::output::LogNext::Chunk(chunk) = reader.next().unwrap() {
        text.extend(chunk.bytes);
    }
    assert_eq!(String::from_utf8(text).unwrap(), "is ***\n");
}
