//! The task that owns a run: starts tries, and waits for their ends, the user and the clock.

use std::any::Any;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hm_vm_core::{CancelCause, Cancellation};
use tokio::task::{Id, JoinError, JoinSet};

use super::options::{RunOutcome, ScheduleOptions};
use super::progress::{Run, broken};
use crate::event::{RunEventSink, StepDetail, Verdict};
use crate::pipeline::StepId;
use crate::plan::Plan;
use crate::runner::{StepEnd, StepReport, StepRunner, StepTry};

/// Carries a plan out. See the [module](super).
///
/// `events` gets the run's start and end, and for each step of the plan the start of its tries, its retries and
/// its one end; the runner sends the rest. Returns when no try is alive any more.
pub async fn run(
    plan: Arc<Plan>,
    runner: Arc<dyn StepRunner>,
    options: ScheduleOptions,
    events: Arc<dyn RunEventSink>,
) -> RunOutcome {
    let mut run = Run::begin(plan, &options, events);
    let mut tries = Tries {
        runner,
        tasks: JoinSet::new(),
        steps: HashMap::new(),
    };
    let mut cancelled = pin!(options.cancel.cancelled());
    let mut killed = pin!(options.cancel.killed());
    let mut expired = pin!(expired(options.timeout));
    let mut waits = Waits::default();
    if let Some(cause) = options.cancel.cause() {
        waits.cancelled = true;
        run.stop(&cause, verdict_of(&cause));
    }
    loop {
        while let Some((attempt, cancel)) = run.next() {
            tries.start(attempt, cancel);
        }
        if tries.tasks.is_empty() {
            return run.finish();
        }
        tokio::select! {
            biased;
            cause = &mut cancelled, if !waits.cancelled => {
                waits.cancelled = true;
                run.stop(&cause, verdict_of(&cause));
            }
            () = &mut killed, if !waits.killed => {
                waits.killed = true;
                run.kill(&options.cancel.cause().unwrap_or(CancelCause::User));
            }
            limit = &mut expired, if !waits.expired => {
                waits.expired = true;
                run.stop(&CancelCause::Timeout(limit), Verdict::TimedOut { step: None });
            }
            Some((step, report)) = tries.next_end() => run.ended(step, report),
        }
    }
}

/// What has happened already, and is not waited for any more.
#[derive(Debug, Default)]
struct Waits {
    cancelled: bool,
    killed: bool,
    expired: bool,
}

/// Returns the limit when it is reached.
async fn expired(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit).await;
            limit
        }
        None => std::future::pending().await,
    }
}

/// The verdict of a run that its caller cancels.
fn verdict_of(cause: &CancelCause) -> Verdict {
    match cause {
        CancelCause::Timeout(_) => Verdict::TimedOut { step: None },
        _ => Verdict::Cancelled,
    }
}

/// The tries that are going on.
struct Tries {
    runner: Arc<dyn StepRunner>,
    tasks: JoinSet<StepReport>,
    steps: HashMap<Id, StepId>,
}

impl Tries {
    fn start(&mut self, attempt: StepTry, cancel: Cancellation) {
        let runner = Arc::clone(&self.runner);
        let task = self
            .tasks
            .spawn(async move { runner.run(attempt, cancel).await });
        self.steps.insert(task.id(), attempt.step);
    }

    /// Waits for the end of one. `None` when there are none. Safe to drop at any time.
    async fn next_end(&mut self) -> Option<(StepId, StepReport)> {
        loop {
            let (id, report) = match self.tasks.join_next_with_id().await? {
                Ok((id, report)) => (id, report),
                Err(error) => (error.id(), of_lost_task(error)),
            };
            if let Some(step) = self.steps.remove(&id) {
                return Some((step, report));
            }
        }
    }
}

/// What is said of a step whose runner did not return.
fn of_lost_task(error: JoinError) -> StepReport {
    let message = match error.try_into_panic() {
        Ok(payload) => format!("the runner panicked: {}", panic_text(payload.as_ref())),
        Err(_) => "the runner was aborted".to_owned(),
    };
    StepReport {
        end: StepEnd::Outcome(broken(message)),
        detail: StepDetail::default(),
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "without a message"
    }
}
