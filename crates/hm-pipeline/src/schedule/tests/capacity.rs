//! Which steps start when.

use std::num::NonZeroUsize;

use super::super::ScheduleOptions;
use super::case::{Act, Case, Script, acts, hit, keep_going, locked, ms, options, takes};
use crate::event::{StepOutcome, Verdict};
use crate::pipeline::{Service, Step, StepBase, StepId, StepLimits};
use crate::testing::step;

fn with_cpus(mut step: Step, cpus: u32) -> Step {
    step.limits.cpus = Some(cpus);
    step
}

fn with_caches(mut step: Step, names: &[&str]) -> Step {
    step.caches = names.iter().map(|name| locked(name)).collect();
    step
}

fn with_service(mut step: Step, limits: StepLimits) -> Step {
    step.services.push(Service {
        name: "db".into(),
        base: StepBase::Image("host".into()),
        run: "db".into(),
        env: step.env.clone(),
        working_dir: "/".into(),
        user: None,
        limits,
        ready: None,
    });
    step
}

fn independent(count: usize, time_ms: u64) -> Vec<(Step, Script)> {
    (0..count)
        .map(|it| (step(&format!("s{it}")), takes(time_ms)))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn ready_steps_start_in_the_plans_order() {
    let seen = Case::new(independent(6, 10)).run(options(2)).await;
    assert_eq!(seen.started(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(seen.outcome.took, ms(30));
}

#[tokio::test(start_paused = true)]
async fn an_only_child_goes_on_before_steps_that_have_waited_longer() {
    let mut steps = independent(4, 10);
    steps.push((step("child").forking(0), takes(10)));
    steps.push((step("grandchild").forking(4), takes(10)));
    let seen = Case::new(steps).run(options(1)).await;
    assert_eq!(seen.started(), [0, 4, 5, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_only_child_with_a_service_from_the_same_step_goes_on_as_well() {
    let mut steps = independent(2, 10);
    let mut child = with_service(step("child").forking(0), StepLimits::default());
    child.services[0].base = StepBase::Step(StepId(0));
    steps.push((child, takes(10)));
    let seen = Case::new(steps).run(options(1)).await;
    assert_eq!(seen.started(), [0, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_only_child_of_a_known_result_waits_for_its_turn() {
    let mut steps = independent(2, 10);
    steps.push((step("known"), takes(1)));
    steps.push((step("child").forking(2), takes(10)));
    let seen = Case::new(steps).decided(2, hit()).run(options(1)).await;
    assert_eq!(seen.started(), [2, 0, 1, 3]);
}

#[tokio::test(start_paused = true)]
async fn one_of_several_children_waits_for_its_turn() {
    let mut steps = independent(2, 10);
    steps.push((step("child").forking(0), takes(10)));
    steps.push((step("other").forking(0), takes(10)));
    let seen = Case::new(steps).run(options(1)).await;
    assert_eq!(seen.started(), [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_only_child_that_needs_something_else_does_not_hold_its_place() {
    let mut steps = independent(3, 10);
    steps.push((step("child").forking(0).needing(&[2]), takes(10)));
    let seen = Case::new(steps).run(options(1)).await;
    assert_eq!(seen.started(), [0, 1, 2, 3]);
    assert_eq!(seen.verdict(), Verdict::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn declared_cpus_limit_what_runs_at_once() {
    let mut steps = independent(6, 10);
    for (step, _) in &mut steps {
        *step = with_cpus(step.clone(), 2);
    }
    let options = ScheduleOptions {
        cpus: 5,
        ..options(6)
    };
    let seen = Case::new(steps).run(options).await;
    assert_eq!(seen.outcome.took, ms(30), "two at a time");
}

#[tokio::test(start_paused = true)]
async fn declared_memory_limits_what_runs_at_once_services_included() {
    let limits = StepLimits {
        memory_mib: Some(512),
        ..StepLimits::default()
    };
    let mut steps = independent(4, 10);
    for (step, _) in &mut steps {
        step.limits = limits;
        *step = with_service(step.clone(), limits);
    }
    let options = ScheduleOptions {
        memory_mib: 2048,
        ..options(4)
    };
    let seen = Case::new(steps).run(options).await;
    assert_eq!(seen.outcome.took, ms(20), "two at a time");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_declares_more_than_there_is_runs_alone() {
    let mut steps = independent(4, 10);
    steps[1].0 = with_cpus(step("big"), 64);
    let options = ScheduleOptions {
        cpus: 2,
        ..options(4)
    };
    let seen = Case::new(steps).run(options).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
    assert_eq!(seen.ended_at(0), ms(10));
    assert_eq!(seen.ended_at(1), ms(20));
    assert_eq!(seen.ended_at(2), ms(30));
    assert_eq!(seen.ended_at(3), ms(30));
}

#[tokio::test(start_paused = true)]
async fn a_large_step_is_not_starved_by_small_ones_behind_it() {
    let mut steps = vec![
        (with_cpus(step("first"), 2), takes(10)),
        (with_cpus(step("large"), 4), takes(10)),
    ];
    for count in 0..20 {
        steps.push((with_cpus(step(&format!("s{count}")), 1), takes(10)));
    }
    let options = ScheduleOptions {
        cpus: 4,
        ..options(4)
    };
    let seen = Case::new(steps).run(options).await;
    assert_eq!(seen.started()[..2], [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_locked_cache_directory_is_used_by_one_step_at_a_time_and_takes_no_place() {
    let mut steps = independent(3, 10);
    steps[0].0 = with_caches(step("a"), &["cargo"]);
    steps[1].0 = with_caches(step("b"), &["cargo"]);
    let seen = Case::new(steps).run(options(2)).await;
    assert_eq!(
        seen.started(),
        [0, 2, 1],
        "the free step passes the waiting one"
    );
    assert_eq!(seen.outcome.took, ms(20));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_wants_two_cache_directories_is_not_starved_by_those_that_want_one() {
    let mut steps = vec![
        (with_caches(step("x"), &["x"]), takes(10)),
        (with_caches(step("both"), &["x", "y"]), takes(10)),
    ];
    for count in 0..10 {
        steps.push((
            with_caches(step(&format!("y{count}")), &["y"]),
            takes(5 + count),
        ));
    }
    let seen = Case::new(steps).run(options(3)).await;
    assert_eq!(seen.started()[..2], [0, 1]);
    assert_eq!(seen.ended_at(1), ms(20));
}

#[tokio::test(start_paused = true)]
async fn a_cache_directory_that_a_step_names_twice_does_not_block_it() {
    let steps = vec![(with_caches(step("a"), &["x", "x"]), takes(10))];
    let seen = Case::new(steps).run(options(1)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_gives_back_what_it_took() {
    let mut steps = independent(2, 10);
    for (index, (step, script)) in steps.iter_mut().enumerate() {
        *step = with_cpus(with_caches(step.clone(), &["x"]), 2);
        *script = acts(&[[Act::Panic, Act::Succeed][index].clone()]);
    }
    let options = ScheduleOptions {
        cpus: 2,
        ..keep_going(1)
    };
    let seen = Case::new(steps).run(options).await;
    assert_eq!(seen.end(1), &StepOutcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn known_results_take_no_capacity_from_steps_that_run() {
    let mut steps = vec![(with_cpus(step("runs"), 2), takes(10))];
    for count in 0..4 {
        steps.push((
            with_caches(with_cpus(step(&format!("h{count}")), 2), &["x"]),
            takes(10),
        ));
    }
    let mut case = Case::new(steps);
    for index in 1..5 {
        case = case.decided(index, hit());
    }
    let options = ScheduleOptions {
        cpus: 2,
        ..options(1)
    };
    let seen = case.run(options).await;
    assert_eq!(seen.outcome.took, ms(10), "all five at once");
    assert_eq!(seen.end(4), &StepOutcome::Cached);
}

#[tokio::test(start_paused = true)]
async fn a_known_result_still_waits_for_what_its_step_needs() {
    let case = Case::new(vec![
        (step("a"), takes(10)),
        (step("b").needing(&[0]), takes(0)),
    ]);
    let seen = case.decided(1, hit()).run(options(1)).await;
    assert_eq!(seen.ended_at(1), ms(10));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_known_results_go_through() {
    let mut steps = independent(1, 0);
    for count in 1..1000 {
        let parent = (count - 1) / 3;
        steps.push((step(&format!("s{count}")).forking(parent), takes(0)));
    }
    let mut case = Case::new(steps);
    for index in 0..1000 {
        case = case.decided(index, hit());
    }
    let seen = case.run(options(2)).await;
    assert_eq!(seen.verdict(), Verdict::Succeeded);
    assert_eq!(seen.tries.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn steps_that_do_not_belong_to_the_run_are_not_run() {
    let mut case = Case::new(independent(3, 10));
    case.plan.order.remove(1);
    case.plan.steps[1].selected = false;
    let options = ScheduleOptions {
        parallelism: NonZeroUsize::MIN,
        ..options(1)
    };
    let seen = case.run(options).await;
    assert_eq!(seen.started(), [0, 2]);
    assert!(seen.outcome.results[1].is_none());
}

#[tokio::test(start_paused = true)]
async fn a_plan_with_a_cycle_ends_instead_of_hanging() {
    let steps = vec![
        (step("a").needing(&[1]), takes(1)),
        (step("b").needing(&[0]), takes(1)),
        (step("c"), takes(1)),
    ];
    let seen = Case::new(steps).run(options(1)).await;
    let verdict = Verdict::Failed {
        step: StepId(0),
        exit_code: 125,
    };
    assert_eq!(seen.verdict(), verdict);
    assert_eq!(seen.end(2), &StepOutcome::Succeeded);
}
