//! What a run comes to when somebody ends it, or its time is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use hm_vm_core::{CancelCause, Cancellation};

use super::super::{ScheduleOptions, run};
use super::case::{
    Act, Case, Script, acts, allowed, failed, interrupt_at, keep_going, ms, options, retried, takes,
};
use crate::event::{RunEvent, RunEventSink, StepOutcome, Verdict};
use crate::pipeline::StepId;
use crate::runner::{StepReport, StepRunner, StepTry};
use crate::testing::{self, step};

#[tokio::test(start_paused = true)]
async fn a_user_who_cancels_makes_the_run_cancelled() {
    let options = options(1);
    interrupt_at(&options.cancel, 15, None);
    let case = Case::new(vec![
        (step("a"), takes(10)),
        (step("b"), takes(10)),
        (step("c").forking(0), takes(10)),
    ]);
    let seen = case.run(options).await;
    assert_eq!(seen.verdict(), Verdict::Cancelled);
    let cancelled = &StepOutcome::Cancelled;
    assert_eq!(seen.end(0), &StepOutcome::Succeeded);
    assert_eq!(
        [seen.end(1), seen.end(2)],
        [cancelled, cancelled],
        "also what had not begun"
    );
    assert_eq!(seen.tries.last().unwrap().cause, Some(CancelCause::User));
    assert_eq!(seen.outcome.took, ms(19));
}

#[tokio::test(start_paused = true)]
async fn a_kill_is_passed_on_to_what_runs() {
    let options = options(2);
    interrupt_at(&options.cancel, 5, Some(2));
    let stubborn = Script {
        grace: ms(1000),
        ..takes(100)
    };
    let case = Case::new(vec![(step("a"), stubborn.clone()), (step("b"), stubborn)]);
    let seen = case.run(options).await;
    assert_eq!(seen.verdict(), Verdict::Cancelled);
    assert!(seen.tries.iter().all(|it| it.killed));
    assert_eq!(seen.outcome.took, ms(7));
}

#[tokio::test(start_paused = true)]
async fn a_kill_reaches_what_was_cancelled_for_a_failure() {
    let options = options(2);
    interrupt_at(&options.cancel, 12, Some(1));
    let stubborn = Script {
        grace: ms(1000),
        ..takes(100)
    };
    let case = Case::new(vec![
        (step("a"), acts(&[Act::Fail(1)])),
        (step("b"), stubborn),
    ]);
    let seen = case.run(options).await;
    assert_eq!(seen.verdict(), failed(0, 1), "the failure came first");
    let other = &seen.tries_of(StepId(1))[0];
    assert_eq!(other.cause, Some(CancelCause::Sibling("a".into())));
    assert!(other.killed);
    assert_eq!(seen.outcome.took, ms(13));
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_after_a_failure_does_not_hide_it() {
    let options = keep_going(1);
    interrupt_at(&options.cancel, 15, None);
    let case = Case::new(vec![
        (step("a"), acts(&[Act::Fail(1)])),
        (step("b"), takes(100)),
    ]);
    let seen = case.run(options).await;
    assert_eq!(seen.verdict(), failed(0, 1));
    assert_eq!(seen.end(1), &StepOutcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_a_cancellation_does_not_hide_it() {
    let options = options(1);
    interrupt_at(&options.cancel, 5, None);
    // Ctrl-C reached its command as well, which ends by itself.
    let script = Script {
        deaf: true,
        ..acts(&[Act::Fail(130)])
    };
    let case = Case::new(vec![(retried(step("a"), 2), script)]);
    let seen = case.run(options).await;
    assert_eq!(seen.end(0), &StepOutcome::Failed { exit_code: 130 });
    assert_eq!(seen.verdict(), Verdict::Cancelled);
    assert_eq!(seen.tries.len(), 1, "no retry once cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_that_comes_too_late_changes_nothing() {
    let options = options(1);
    interrupt_at(&options.cancel, 5, None);
    let script = Script {
        deaf: true,
        ..takes(10)
    };
    let seen = Case::new(vec![(step("a"), script)]).run(options).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_before_it_begins_runs_nothing() {
    let options = options(1);
    options.cancel.cancel(CancelCause::User);
    let case = Case::new(vec![
        (step("a"), takes(1)),
        (step("b").forking(0), takes(1)),
    ]);
    let seen = case.run(options).await;
    assert_eq!(seen.verdict(), Verdict::Cancelled);
    assert!(seen.tries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_runs_own_timeout_names_no_step() {
    let options = ScheduleOptions {
        timeout: Some(ms(15)),
        ..options(1)
    };
    let case = Case::new(vec![(step("a"), takes(10)), (step("b"), takes(10))]);
    let seen = case.run(options).await;
    assert_eq!(seen.verdict(), Verdict::TimedOut { step: None });
    assert_eq!(seen.end(1), &StepOutcome::Cancelled);
    let cause = seen.tries.last().unwrap().cause.clone();
    assert_eq!(cause, Some(CancelCause::Timeout(ms(15))));
}

#[tokio::test(start_paused = true)]
async fn an_allowed_failure_then_a_cancellation_is_cancelled() {
    let options = options(1);
    interrupt_at(&options.cancel, 15, None);
    let case = Case::new(vec![
        (allowed(step("a")), acts(&[Act::Fail(1)])),
        (step("b"), takes(10)),
    ]);
    let seen = case.run(options).await;
    assert_eq!(seen.verdict(), Verdict::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_time_is_over_makes_the_run_timed_out() {
    let options = options(1);
    options.cancel.cancel(CancelCause::Timeout(ms(1)));
    let seen = Case::new(vec![(step("a"), takes(1))]).run(options).await;
    assert_eq!(seen.verdict(), Verdict::TimedOut { step: None });
}

/// Runs for ever, and counts its tries.
#[derive(Default)]
struct Endless {
    begun: AtomicUsize,
    over: AtomicUsize,
}

/// Counts the end of a try, however it comes.
struct Alive<'a>(&'a Endless);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl StepRunner for Endless {
    async fn run(&self, _attempt: StepTry, _cancel: Cancellation) -> StepReport {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _alive = Alive(self);
        std::future::pending().await
    }
}

impl RunEventSink for Endless {
    fn on_event(&self, _event: &RunEvent) {}
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_leaves_no_try_alive() {
    let runner = Arc::new(Endless::default());
    let plan = testing::plan(testing::pipeline(vec![step("a"), step("b")]));
    let run = run(
        Arc::new(plan),
        Arc::clone(&runner) as Arc<dyn StepRunner>,
        options(2),
        Arc::clone(&runner) as Arc<dyn RunEventSink>,
    );
    assert!(tokio::time::timeout(ms(5), run).await.is_err());
    // The runtime drops them when it gets to them.
    tokio::time::sleep(ms(1)).await;
    assert_eq!(runner.begun.load(Ordering::SeqCst), 2);
    assert_eq!(runner.over.load(Ordering::SeqCst), 2);
}
