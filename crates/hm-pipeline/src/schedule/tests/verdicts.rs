//! What a run comes to when steps end badly, one test for each rule.

use hm_vm_core::CancelCause;

use super::case::{
    Act, Case, LIMIT, Script, acts, allowed, failed, keep_going, ms, options, retried, skipped_by,
    takes,
};
use crate::event::{RunEvent, SkipReason, StepOutcome, Verdict};
use crate::pipeline::StepId;
use crate::plan::Decision;
use crate::runner::StepEnd;
use crate::testing::step;

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
        (step("d").needing(&[1]), takes(1)),
    ])
    .decided(0, Decision::Skip(SkipReason::Condition));
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
    let expected = [
        &StepOutcome::Skipped(SkipReason::Condition),
        &skipped_by(0),
        &StepOutcome::Succeeded,
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
