//! What holds for every pipeline. What holds for every single run is checked by [`Seen::check`].

use std::future::Future;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::super::ScheduleOptions;
use super::case::{Case, interrupt_at, ms};
use super::generate::{Kind, case, options};
use super::model::Model;
use super::seen::Seen;
use crate::event::{RunEvent, SkipReason, StepOutcome, StepResult, Verdict};
use crate::pipeline::StepId;

const ALL: Kind = Kind {
    failures: true,
    losses: true,
    limits: true,
};
const FAILING: Kind = Kind {
    losses: false,
    ..ALL
};
const FREE: Kind = Kind {
    losses: false,
    limits: false,
    failures: true,
};

fn paused<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

/// The verdict that a failure is the reason for.
fn verdict_of(step: StepId, result: &StepResult) -> Option<Verdict> {
    if result.allowed {
        return None;
    }
    let exit_code = match result.outcome {
        StepOutcome::Failed { exit_code } => exit_code,
        StepOutcome::Broken { .. } => 125,
        StepOutcome::TimedOut { .. } => return Some(Verdict::TimedOut { step: Some(step) }),
        _ => return None,
    };
    Some(Verdict::Failed { step, exit_code })
}

/// The first failure that was told, with its time in milliseconds.
fn first_failure(seen: &Seen) -> Option<(u128, Verdict)> {
    seen.events.iter().find_map(|(at, event)| match event {
        RunEvent::StepEnded { step, result } => {
            verdict_of(*step, result).map(|verdict| (at.as_millis(), verdict))
        }
        _ => None,
    })
}

fn check_against(model: &Model, case: &Case, seen: &Seen) {
    for step in 0..case.scripts.len() {
        let end = seen.end(step);
        assert!(
            model.agrees(step, end),
            "{step}: {end:?} instead of {:?}",
            model.steps[step]
        );
        if end.is_success() && model.tries[step] > 0 {
            assert_eq!(seen.values[step], model.values[step]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn with_keep_going_failures_skip_exactly_their_descendants(
        (case, options) in (case(FAILING), options())
    ) {
        let model = Model::of(&case);
        let options = ScheduleOptions { keep_going: true, ..options };
        let seen = paused(case.clone().run(options));
        check_against(&model, &case, &seen);
        for step in 0..case.scripts.len() {
            let result = seen.outcome.results[step].as_ref().unwrap();
            prop_assert_eq!(result.attempt, model.tries[step]);
        }
        let first = first_failure(&seen).map(|it| it.1);
        prop_assert_eq!(seen.verdict(), first.unwrap_or(Verdict::Succeeded));
    }

    #[test]
    fn results_that_are_gone_change_nothing_but_the_time(
        (case, options) in (case(ALL), options())
    ) {
        let model = Model::of(&case);
        let options = ScheduleOptions { keep_going: true, ..options };
        let seen = paused(case.clone().run(options));
        check_against(&model, &case, &seen);
        let first = first_failure(&seen).map(|it| it.1);
        prop_assert_eq!(seen.verdict(), first.unwrap_or(Verdict::Succeeded));
    }

    #[test]
    fn without_keep_going_nothing_starts_after_a_failure(
        (case, options) in (case(ALL), options())
    ) {
        let model = Model::of(&case);
        let options = ScheduleOptions { keep_going: false, ..options };
        let seen = paused(case.clone().run(options));
        let Some((_, verdict)) = first_failure(&seen) else {
            check_against(&model, &case, &seen);
            prop_assert_eq!(seen.verdict(), Verdict::Succeeded);
            return Ok(());
        };
        prop_assert_eq!(seen.verdict(), verdict);
        let mut failed = false;
        for (_, event) in &seen.events {
            match event {
                RunEvent::StepStarted { step, .. } => prop_assert!(!failed, "{step} starts"),
                RunEvent::StepEnded { step, result } => {
                    let tried = !seen.tries_of(*step).is_empty();
                    let fits = match &result.outcome {
                        StepOutcome::Cancelled => failed && tried,
                        StepOutcome::Skipped(SkipReason::RunFailed) => failed && !tried,
                        StepOutcome::Failed { .. } | StepOutcome::TimedOut { .. } if failed => true,
                        StepOutcome::Skipped(SkipReason::Dependency(_)) => !tried,
                        outcome => model.agrees(step.0, outcome),
                    };
                    prop_assert!(fits, "{step}: {result:?}");
                    failed |= verdict_of(*step, result).is_some();
                }
                _ => {}
            }
        }
    }

    #[test]
    fn with_room_for_all_a_run_takes_as_long_as_its_longest_path(case in case(FREE)) {
        let model = Model::of(&case);
        let options = ScheduleOptions {
            parallelism: NonZeroUsize::new(case.scripts.len().max(1)).unwrap(),
            keep_going: true,
            ..ScheduleOptions::default()
        };
        let seen = paused(case.run(options));
        prop_assert_eq!(seen.outcome.took, model.critical_path);
    }

    #[test]
    fn no_place_is_left_empty_while_a_step_could_have_it(
        (case, parallelism) in (case(FREE), 1_usize..5)
    ) {
        let model = Model::of(&case);
        let options = ScheduleOptions {
            parallelism: NonZeroUsize::new(parallelism).unwrap(),
            keep_going: true,
            ..ScheduleOptions::default()
        };
        let seen = paused(case.run(options));
        // Graham's bound for schedules that leave no place empty.
        let bound = model.critical_path + model.work / u32::try_from(parallelism).unwrap();
        prop_assert!(seen.outcome.took <= bound, "{:?} > {bound:?}", seen.outcome.took);
    }

    #[test]
    fn a_cancellation_at_any_time_ends_everything_with_the_right_verdict(
        (case, options, at, kill) in
            (case(ALL), options(), 0_u64..40, prop::option::of(0_u64..3))
    ) {
        let at = at * 2 + 1;
        let seen = paused(async {
            interrupt_at(&options.cancel, at, kill.map(|it| it * 2));
            case.clone().run(options.clone()).await
        });
        let cancelled = seen.outcome.results.iter().flatten();
        let cancelled = cancelled.filter(|it| it.outcome == StepOutcome::Cancelled).count();
        match first_failure(&seen) {
            Some((told, verdict)) if told < u128::from(at) => {
                prop_assert_eq!(seen.verdict(), verdict);
            }
            _ if cancelled > 0 => {
                prop_assert_eq!(seen.verdict(), Verdict::Cancelled);
                prop_assert!(seen.outcome.took <= ms(at + 4), "no longer than a grace period");
            }
            _ => {
                check_against(&Model::of(&case), &case, &seen);
                prop_assert_eq!(seen.verdict(), Verdict::Succeeded);
            }
        }
        prop_assert!(seen.outcome.took <= ms(at + 4) || cancelled == 0);
    }

    #[test]
    fn the_end_of_the_runs_time_is_no_steps_fault(
        (case, options, at) in (case(FREE), options(), 0_u64..40)
    ) {
        let at = at * 2 + 1;
        let options = ScheduleOptions { timeout: Some(ms(at)), ..options };
        let seen = paused(case.run(options));
        match first_failure(&seen) {
            Some((told, verdict)) => {
                prop_assert!(told < u128::from(at));
                prop_assert_eq!(seen.verdict(), verdict);
            }
            None if seen.outcome.took < ms(at) => {
                prop_assert_eq!(seen.verdict(), Verdict::Succeeded);
            }
            None => prop_assert_eq!(seen.verdict(), Verdict::TimedOut { step: None }),
        }
    }
}
