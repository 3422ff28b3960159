//! Snapshots that are gone.

use super::case::{
    Act, Case, Script, acts, failed, hit, interrupt_at, keep_going, ms, options, retried,
    skipped_by, takes,
};
use crate::event::{SkipReason, StepOutcome, Verdict};
use crate::pipeline::StepId;
use crate::plan::Decision;
use crate::runner::StepEnd;
use crate::testing::step;

/// A step whose result is known, but whose snapshot is not there.
fn gone() -> Script {
    Script {
        gone: true,
        ..takes(10)
    }
}

fn not_needed() -> Decision {
    Decision::Skip(SkipReason::NotNeeded)
}

fn message(outcome: &StepOutcome) -> &str {
    match outcome {
        StepOutcome::Broken { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_parent_is_made_again_and_ends_once() {
    let case = Case::new(vec![(step("a"), gone()), (step("b").forking(0), takes(10))]);
    let seen = case.decided(0, hit()).run(options(1)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
    assert_eq!(seen.ends(), [&StepOutcome::Cached, &StepOutcome::Succeeded]);
    let tries: Vec<_> = seen
        .tries
        .iter()
        .map(|it| (it.attempt.step.0, it.attempt.attempt, it.attempt.rebuild))
        .collect();
    let expected = [(0, 1, false), (1, 1, false), (0, 2, true), (1, 2, false)];
    assert_eq!(tries, expected);
    assert_eq!(
        seen.notices(),
        ["the snapshot of a is gone: it is made again"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_parent_that_was_not_needed_is_made_from_its_own_missing_parent() {
    let lost = Script {
        lost: true,
        ..takes(10)
    };
    let case = Case::new(vec![
        (step("a"), gone()),
        (step("b").forking(0), takes(10)),
        (step("c").forking(1), lost),
    ])
    .decided(0, not_needed())
    .decided(1, not_needed())
    .decided(2, hit());
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
    let skipped = &StepOutcome::Skipped(SkipReason::NotNeeded);
    assert_eq!(seen.ends(), [skipped, skipped, &StepOutcome::Succeeded]);
    let tries: Vec<_> = seen.tries.iter().map(|it| it.attempt.step.0).collect();
    assert_eq!(tries, [2, 1, 0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn all_that_fork_from_a_missing_parent_wait_for_one_remake() {
    let mut steps = vec![(step("a"), gone())];
    for name in ["b", "c", "d", "e"] {
        steps.push((step(name).forking(0), takes(10)));
    }
    let seen = Case::new(steps).decided(0, hit()).run(options(3)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
    assert_eq!(seen.tries_of(StepId(0)).len(), 2, "one replay, one remake");
    assert_eq!(seen.notices().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_try_that_looked_for_the_old_snapshot_asks_for_no_second_remake() {
    let missing = Act::Return(StepEnd::ParentMissing);
    let slow = Script {
        time: ms(50),
        ..acts(&[missing, Act::Succeed])
    };
    let quick = Script {
        time: ms(1),
        ..slow.clone()
    };
    let case = Case::new(vec![
        (step("a"), takes(10)),
        (step("b").forking(0), quick),
        (step("c").forking(0), slow),
    ]);
    let seen = case.decided(0, hit()).run(options(2)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
    assert_eq!(seen.tries_of(StepId(0)).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_is_always_gone_breaks_the_step_in_the_end() {
    let never = acts(&[Act::Return(StepEnd::ParentMissing)]);
    let case = Case::new(vec![
        (step("a"), takes(10)),
        (step("b").forking(0), never),
        (step("c").needing(&[1]), takes(10)),
    ]);
    let seen = case.decided(0, hit()).run(keep_going(1)).await;
    assert_eq!(seen.verdict(), failed(1, 125));
    assert_eq!(seen.tries_of(StepId(0)).len(), 4);
    assert_eq!(seen.tries_of(StepId(1)).len(), 4);
    assert!(message(seen.end(1)).contains("after it was made again 3 times"));
    assert_eq!(seen.end(2), &skipped_by(1));
}

#[tokio::test(start_paused = true)]
async fn a_step_without_a_parent_that_misses_one_is_broken() {
    let case = Case::new(vec![(
        step("a"),
        acts(&[Act::Return(StepEnd::ParentMissing)]),
    )]);
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), failed(0, 125));
}

#[tokio::test(start_paused = true)]
async fn a_remake_that_fails_breaks_those_that_wait_for_it() {
    let fails = Script {
        rebuilds: vec![Act::Fail(9)],
        ..gone()
    };
    let case = Case::new(vec![
        (step("a"), fails),
        (step("b").forking(0), takes(10)),
        (step("c").forking(0), takes(10)),
        (step("d").forking(0), takes(10)),
        (step("e").needing(&[1]), takes(10)),
        (step("f"), takes(10)),
    ]);
    let seen = case
        .decided(0, hit())
        .decided(3, hit())
        .run(keep_going(1))
        .await;
    assert_eq!(seen.verdict(), failed(1, 125));
    assert_eq!(
        message(seen.end(1)),
        "the snapshot of a is gone, and making it again failed: exit code 9"
    );
    assert_eq!(seen.end(0), &StepOutcome::Cached, "as it was told");
    assert!(matches!(seen.end(2), StepOutcome::Broken { .. }));
    assert_eq!(seen.end(3), &StepOutcome::Cached, "needs no snapshot");
    assert_eq!(seen.end(4), &skipped_by(1));
    assert_eq!(seen.end(5), &StepOutcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_remake_is_tried_again_as_often_as_the_step_says() {
    let fails_once = Script {
        rebuilds: vec![Act::Fail(9), Act::Succeed],
        ..gone()
    };
    let case = Case::new(vec![
        (retried(step("a"), 1), fails_once),
        (step("b").forking(0), takes(10)),
    ]);
    let seen = case.decided(0, hit()).run(options(1)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn the_retries_of_a_remake_are_not_those_that_the_step_has_used_up() {
    let once = acts(&[Act::Return(StepEnd::ParentMissing), Act::Succeed]);
    let fails_once = Script {
        rebuilds: vec![Act::Fail(9), Act::Succeed],
        ..acts(&[Act::Fail(8), Act::Succeed])
    };
    let case = Case::new(vec![
        (retried(step("a"), 1), fails_once),
        (step("b").forking(0), once),
    ]);
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
    assert_eq!(seen.tries_of(StepId(0)).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_known_result_that_waited_for_a_failed_remake_is_replayed() {
    let fails = Script {
        rebuilds: vec![Act::Fail(9)],
        ..gone()
    };
    let case = Case::new(vec![
        (step("a"), fails),
        (step("slow"), takes(15)),
        (step("b").forking(0), takes(10)),
        (step("known").forking(0).needing(&[1]), takes(10)),
    ]);
    let case = case.decided(0, hit()).decided(3, hit());
    let seen = case.run(keep_going(2)).await;
    assert_eq!(seen.verdict(), failed(2, 125));
    assert_eq!(seen.end(3), &StepOutcome::Cached);
}

#[tokio::test(start_paused = true)]
async fn a_failed_remake_in_a_chain_of_remakes_reaches_the_step_at_its_end() {
    let fails = Script {
        rebuilds: vec![Act::Panic],
        ..gone()
    };
    let case = Case::new(vec![
        (step("a"), fails),
        (step("b").forking(0), gone()),
        (step("c").forking(1), takes(10)),
    ])
    .decided(0, hit())
    .decided(1, hit());
    let seen = case.run(options(1)).await;
    assert_eq!(seen.verdict(), failed(2, 125));
    assert!(message(seen.end(2)).contains("a fake panic"));
}

#[tokio::test(start_paused = true)]
async fn a_remake_waits_for_what_its_step_needs_and_fails_with_it() {
    let lost = Script {
        lost: true,
        ..takes(1)
    };
    let case = Case::new(vec![
        (step("slow"), acts(&[Act::Fail(1)])),
        (step("a").needing(&[0]), gone()),
        (step("b").forking(1), lost),
    ])
    .decided(1, not_needed())
    .decided(2, hit());
    let seen = case.run(keep_going(2)).await;
    assert_eq!(seen.verdict(), failed(0, 1));
    assert!(message(seen.end(2)).contains("slow did not end well"));
    assert_eq!(seen.tries_of(StepId(1)).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_during_a_remake_cancels_it_and_those_that_wait() {
    let options = options(2);
    interrupt_at(&options.cancel, 15, None);
    let case = Case::new(vec![
        (step("a"), gone()),
        (step("b").forking(0), takes(10)),
        (step("c").needing(&[1]), takes(10)),
    ]);
    let seen = case.decided(0, hit()).run(options).await;
    assert_eq!(seen.verdict(), Verdict::Cancelled);
    let cancelled = &StepOutcome::Cancelled;
    assert_eq!(seen.ends(), [&StepOutcome::Cached, cancelled, cancelled]);
    assert!(seen.tries.last().unwrap().cause.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_while_a_remake_waits_for_its_turn_breaks_nothing() {
    let options = options(1);
    interrupt_at(&options.cancel, 5, None);
    let lost = Script {
        lost: true,
        ..takes(1)
    };
    let case = Case::new(vec![
        (step("long"), takes(10)),
        (step("behind"), takes(10)),
        (step("a").needing(&[1]), gone()),
        (step("b").forking(2), lost),
    ])
    .decided(2, not_needed())
    .decided(3, hit());
    let seen = case.run(options).await;
    assert_eq!(seen.verdict(), Verdict::Cancelled);
    assert_eq!(seen.end(3), &StepOutcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_failure_elsewhere_during_a_remake_cancels_it() {
    let late = Script {
        time: ms(15),
        ..acts(&[Act::Fail(1)])
    };
    let case = Case::new(vec![
        (step("a"), gone()),
        (step("b").forking(0), takes(10)),
        (step("c"), late),
    ]);
    let seen = case.decided(0, hit()).run(options(2)).await;
    assert_eq!(seen.verdict(), failed(2, 1));
    assert_eq!(seen.end(1), &StepOutcome::Cancelled, "it had begun");
    assert_eq!(seen.outcome.took, ms(19));
}
