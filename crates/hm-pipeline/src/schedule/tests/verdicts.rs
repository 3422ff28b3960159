//! What a run comes to, one test for each rule.

use hm_vm_core::{CancelCause, Cancellation};

use super::super::ScheduleOptions;
use super::fake::{Act, Case, LIMIT, Script, acts, ms, takes};
use crate::event::{RunEvent, SkipReason, StepOutcome, Verdict};
use crate::pipeline::{Step, StepId};
use crate::plan::Decision;
use crate::runner::StepEnd;
use crate::testing::step;

fn options(parallelism: usize) -> ScheduleOptions {
    ScheduleOptions {
        parallelism: parallelism.try_into().unwrap(),
        ..ScheduleOptions::default()
    }
}

fn keep_going(parallelism: usize) -> ScheduleOptions {
    ScheduleOptions {
        keep_going: true,
        ..options(parallelism)
    }
}

fn skipped_by(step: usize) -> StepOutcome {
    StepOutcome::Skipped(SkipReason::Dependency(StepId(step)))
}

fn allowed(mut step: Step) -> Step {
    step.allow_failure = true;
    step
}

fn retried(mut step: Step, retries: u32) -> Step {
    step.retries = retries;
    step
}

fn failed(step: usize, exit_code: i32) -> Verdict {
    Verdict::Failed {
        step: StepId(step),
        exit_code,
    }
}

/// Cancels at a moment, and kills at a later one.
fn interrupt_at(cancel: &Cancellation, at_ms: u64, kill_ms: Option<u64>) {
    let cancel = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(ms(at_ms)).await;
        cancel.cancel(CancelCause::User);
        if let Some(kill_ms) = kill_ms {
            tokio::time::sleep(ms(kill_ms)).await;
            cancel.kill(CancelCause::User);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_run_without_steps_has_succeeded() {
    let seen = Case::new(Vec::new()).run(options(1)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_failing_step_makes_the_run_failed_with_its_exit_code() {
    let case = Case::new(vec![(step("a"), acts(&[Act::Fail(3)]))]);
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), failed(0, 3));
    assert_eq!(seen.end(0), &StepOutcome::Failed { exit_code: 3 });
}

#[tokio::test(start_paused = true)]
async fn a_step_that_exits_with_130_has_failed_and_not_been_cancelled() {
    let case = Case::new(vec![(step("a"), acts(&[Act::Fail(130)]))]);
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), failed(0, 130));
}

#[tokio::test(start_paused = true)]
async fn a_step_out_of_time_makes_the_run_timed_out() {
    let case = Case::new(vec![(step("a"), acts(&[Act::TimeOut]))]);
    let seen = case.run(options(1)).await;
    let verdict = Verdict::TimedOut {
        step: Some(StepId(0)),
    };
    assert_eq!(seen.verdict(), verdict);
    assert_eq!(seen.end(0), &StepOutcome::TimedOut { limit: LIMIT });
}

#[tokio::test(start_paused = true)]
async fn a_broken_step_makes_the_run_failed_with_125() {
    let case = Case::new(vec![(retried(step("a"), 3), acts(&[Act::Break]))]);
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), failed(0, 125));
    assert_eq!(seen.tries.len(), 1, "what is broken is not tried again");
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_in_time_decides_and_not_the_first_in_order() {
    let slow = Script {
        time: ms(20),
        ..acts(&[Act::Fail(1)])
    };
    let case = Case::new(vec![(step("a"), slow), (step("b"), acts(&[Act::Fail(2)]))]);
    let seen = case.run(keep_going(2)).await;
    assert_eq!(seen.verdict(), failed(1, 2));
    assert_eq!(seen.end(0), &StepOutcome::Failed { exit_code: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_failure_cancels_what_runs_as_a_sibling_and_skips_the_rest() {
    let case = Case::new(vec![
        (step("a"), acts(&[Act::Fail(1)])),
        (step("b"), takes(1000)),
        (step("c").forking(0), takes(1)),
        (step("d").needing(&[2]), takes(1)),
        (step("e").forking(1), takes(1)),
        (step("f"), takes(1)),
    ]);
    let seen = case.run(options(2)).await;
    assert_eq!(seen.verdict(), failed(0, 1));
    let run_failed = StepOutcome::Skipped(SkipReason::RunFailed);
    let expected = [
        &StepOutcome::Failed { exit_code: 1 },
        &StepOutcome::Cancelled,
        &skipped_by(0),
        &skipped_by(0),
        &run_failed,
        &run_failed,
    ];
    assert_eq!(seen.ends(), expected);
    let cause = seen.tries_of(StepId(1))[0].cause.clone();
    assert_eq!(cause, Some(CancelCause::Sibling("a".into())));
    assert_eq!(seen.outcome.took, ms(14));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_by_itself_while_it_is_cancelled_keeps_its_outcome() {
    let case = Case::new(vec![
        (step("a"), acts(&[Act::Fail(1)])),
        (step("b"), acts(&[Act::Fail(2)])),
    ]);
    let seen = case.run(options(2)).await;
    assert_eq!(seen.verdict(), failed(0, 1));
    assert_eq!(seen.end(1), &StepOutcome::Failed { exit_code: 2 });
}

#[tokio::test(start_paused = true)]
async fn keep_going_skips_the_descendants_of_a_failure_and_nothing_else() {
    let case = Case::new(vec![
        (step("a"), acts(&[Act::Fail(1)])),
        (step("b").forking(0), takes(1)),
        (step("c").needing(&[1]), takes(1)),
        (step("d"), takes(1)),
        (step("e").forking(3).needing(&[2]), takes(1)),
        (step("f").forking(3), takes(1)),
    ]);
    let seen = case.run(keep_going(1)).await;
    assert_eq!(seen.verdict(), failed(0, 1));
    let expected = [
        &StepOutcome::Failed { exit_code: 1 },
        &skipped_by(0),
        &skipped_by(0),
        &StepOutcome::Succeeded,
        &skipped_by(0),
        &StepOutcome::Succeeded,
    ];
    assert_eq!(seen.ends(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_allowed_failure_skips_what_forks_from_it_and_runs_what_needs_it() {
    let case = Case::new(vec![
        (allowed(step("a")), acts(&[Act::Fail(1)])),
        (step("b").forking(0), takes(1)),
        (step("c").needing(&[0]), takes(1)),
        (step("d").needing(&[1]), takes(1)),
    ]);
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
    let expected = [
        &StepOutcome::Failed { exit_code: 1 },
        &skipped_by(0),
        &StepOutcome::Succeeded,
        &skipped_by(0),
    ];
    assert_eq!(seen.ends(), expected);
    assert!(seen.outcome.results[0].as_ref().unwrap().allowed);
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_condition_does_not_hold_skips_what_forks_from_it_and_runs_what_needs_it() {
    let case = Case::new(vec![
        (step("a"), takes(1)),
        (step("b").forking(0), takes(1)),
        (step("c").needing(&[0]), takes(1)),
    ])
    .decided(0, Decision::Skip(SkipReason::Condition));
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
    let expected = [
        &StepOutcome::Skipped(SkipReason::Condition),
        &skipped_by(0),
        &StepOutcome::Succeeded,
    ];
    assert_eq!(seen.ends(), expected);
}

#[tokio::test(start_paused = true)]
async fn steps_that_the_plan_skips_keep_their_reason_and_end_before_anything_starts() {
    let case = Case::new(vec![
        (step("a"), takes(1)),
        (step("b").forking(0), takes(1)),
        (step("c").forking(1), takes(1)),
    ])
    .decided(0, Decision::Skip(SkipReason::Condition))
    .decided(1, Decision::Skip(SkipReason::NotNeeded));
    let seen = case.run(options(1)).await;
    let expected = [
        &StepOutcome::Skipped(SkipReason::Condition),
        &StepOutcome::Skipped(SkipReason::NotNeeded),
        &StepOutcome::Succeeded,
    ];
    assert_eq!(seen.ends()[..2], expected[..2]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_succeeds_makes_the_step_succeed() {
    let script = acts(&[Act::Fail(1), Act::TimeOut, Act::Succeed]);
    let case = Case::new(vec![(retried(step("a"), 2), script)]);
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
    assert_eq!(seen.tries.len(), 3);
    let retries = seen
        .events
        .iter()
        .filter(|(_, it)| matches!(it, RunEvent::StepRetried { .. }));
    assert_eq!(retries.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_step_is_not_tried_more_often_than_it_says() {
    let case = Case::new(vec![(retried(step("a"), 2), acts(&[Act::Fail(4)]))]);
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), failed(0, 4));
    assert_eq!(seen.tries.len(), 3);
}

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
async fn a_runner_that_panics_breaks_its_step_and_the_run_ends() {
    let case = Case::new(vec![
        (step("a"), acts(&[Act::Panic])),
        (step("b").forking(0), takes(1)),
        (step("c"), takes(1)),
    ]);
    let seen = case.run(keep_going(1)).await;
    assert_eq!(seen.verdict(), failed(0, 125));
    let StepOutcome::Broken { message, .. } = seen.end(0) else {
        panic!("{:?}", seen.end(0));
    };
    assert_eq!(message, "the runner panicked: a fake panic");
    assert_eq!(seen.end(1), &skipped_by(0));
    assert_eq!(seen.end(2), &StepOutcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_gives_up_by_itself_breaks_its_step() {
    let skipped = StepOutcome::Skipped(SkipReason::NotNeeded);
    for outcome in [StepOutcome::Cancelled, skipped] {
        let act = Act::Return(StepEnd::Outcome(outcome));
        let seen = Case::new(vec![(step("a"), acts(&[act]))])
            .run(options(1))
            .await;
        assert_eq!(seen.verdict(), failed(0, 125));
    }
}
