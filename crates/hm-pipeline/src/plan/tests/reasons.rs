//! Why steps run, and why not: a test for each reason and each part of the rule.

use std::time::{Duration, SystemTime};

use super::fake::{World, decisions, targets};
use crate::condition::Condition;
use crate::pipeline::{CacheMode, Outputs, Pipeline, Service, Step, StepBase, StepId, StepLimits};
use crate::plan::{CachedEntry, Decision, LostEntry, PlanOptions, RunReason};
use crate::testing::{pipeline, step};

/// `a`, from which `b` forks, from which `c` forks.
fn chain() -> Pipeline {
    pipeline(vec![step("a"), step("b").forking(0), step("c").forking(1)])
}

/// A world in which all of a pipeline's results are known.
async fn full(pipeline: &Pipeline) -> World {
    let mut world = World::default();
    let plan = world.plain(pipeline).await;
    world.fill(&plan);
    world
}

async fn plain(world: &World, pipeline: &Pipeline) -> Vec<String> {
    decisions(&world.plain(pipeline).await)
}

#[tokio::test]
async fn a_first_run_runs_everything() {
    let world = World::default();
    assert_eq!(
        plain(&world, &chain()).await,
        ["NoEntry", "ParentRuns(0)", "ParentRuns(1)"]
    );
}

#[tokio::test]
async fn what_is_known_is_a_hit() {
    let world = full(&chain()).await;
    assert_eq!(plain(&world, &chain()).await, ["hit", "hit", "hit"]);
}

#[tokio::test]
async fn the_end_of_a_chain_runs_alone() {
    let mut world = full(&chain()).await;
    let plan = world.plain(&chain()).await;
    world.forget(&plan, 2);
    assert_eq!(plain(&world, &chain()).await, ["hit", "hit", "NoEntry"]);
}

#[tokio::test]
async fn what_was_lost_says_so_and_is_asked_for_misses_alone() {
    let mut world = full(&chain()).await;
    let plan = world.plain(&chain()).await;
    world.forget(&plan, 2);
    let key = plan.steps[2].key.clone().unwrap();
    let lost = LostEntry {
        at: SystemTime::UNIX_EPOCH,
        by: "the limit of 100 entries".into(),
    };
    world.lost.insert(key.clone(), lost.clone());
    let plan = world.plain(&chain()).await;
    assert_eq!(plan.steps[2].decision, Decision::Run(RunReason::Lost(lost)));
    assert_eq!(world.count("lost"), 1);
    assert_eq!(world.count(&format!("lost {key}")), 1);
}

#[tokio::test]
async fn a_result_that_is_too_old_is_none() {
    let mut pipeline = chain();
    let ttl = Duration::from_secs(60);
    pipeline.steps[1].cache.ttl = Some(ttl);
    let mut world = full(&pipeline).await;
    assert_eq!(plain(&world, &pipeline).await, ["hit", "hit", "hit"]);
    let plan = world.plain(&pipeline).await;
    world.change(&plan, 1, |entry| {
        entry.created = SystemTime::now() - Duration::from_secs(3600);
    });
    let plan = world.plain(&pipeline).await;
    assert!(matches!(
        plan.steps[1].decision,
        Decision::Run(RunReason::Expired { age, ttl: allowed }) if age > ttl && allowed == ttl
    ));
    assert_eq!(decisions(&plan), ["hit", "Expired", "ParentRuns(1)"]);
}

#[tokio::test]
async fn a_result_from_the_future_is_not_old() {
    let mut pipeline = chain();
    pipeline.steps[2].cache.ttl = Some(Duration::ZERO);
    let mut world = full(&pipeline).await;
    let plan = world.plain(&pipeline).await;
    world.change(&plan, 2, |entry| {
        entry.created = SystemTime::now() + Duration::from_secs(3600);
    });
    assert_eq!(plain(&world, &pipeline).await, ["hit", "hit", "hit"]);
}

#[tokio::test]
async fn a_result_made_from_another_one_of_its_parent_is_none() {
    let mut world = full(&chain()).await;
    let plan = world.plain(&chain()).await;
    world.change(&plan, 0, |entry| {
        entry.snapshot = hm_vm_core::SnapshotId::new("made again");
    });
    assert_eq!(
        plain(&world, &chain()).await,
        ["hit", "ParentRemade(0)", "ParentRuns(1)"]
    );
}

#[tokio::test]
async fn a_result_whose_parent_was_not_recorded_counts() {
    let mut world = full(&chain()).await;
    let plan = world.plain(&chain()).await;
    world.change(&plan, 1, |entry| entry.parent = None);
    assert_eq!(plain(&world, &chain()).await, ["hit", "hit", "hit"]);
}

#[tokio::test]
async fn what_is_not_cached_runs_with_all_that_forks_from_it() {
    let mut pipeline = chain();
    pipeline.steps[1].cache.mode = CacheMode::Off;
    let world = full(&pipeline).await;
    let plan = world.plain(&pipeline).await;
    assert_eq!(decisions(&plan), ["hit", "CacheOff", "ParentUncached(1)"]);
    assert!(plan.steps[1].key.is_none() && plan.steps[2].key.is_none());
}

#[tokio::test]
async fn without_a_digest_there_is_no_key() {
    let mut pipeline = chain();
    pipeline.steps[0].base = StepBase::Image("strange".into());
    let mut world = World::default();
    world.unknown_images.push("strange".into());
    assert_eq!(
        plain(&world, &pipeline).await,
        ["NoDigest", "ParentUncached(0)", "ParentUncached(1)"]
    );
}

#[tokio::test]
async fn no_cache_runs_everything_but_keeps_the_keys() {
    let world = full(&chain()).await;
    let options = PlanOptions {
        no_cache: true,
        ..PlanOptions::default()
    };
    let plan = world.plan(&chain(), &options).await;
    assert_eq!(decisions(&plan), ["Asked", "Asked", "Asked"]);
    assert!(plan.steps.iter().all(|step| step.key.is_some()));
}

#[tokio::test]
async fn from_a_step_runs_it_and_all_that_forks_from_it() {
    let mut pipeline = chain();
    pipeline.steps.push(step("other").needing(&[1]));
    let world = full(&pipeline).await;
    let options = PlanOptions {
        from: vec!["b".into()],
        ..PlanOptions::default()
    };
    let plan = world.plan(&pipeline, &options).await;
    assert_eq!(decisions(&plan), ["hit", "Asked", "Asked", "hit"]);
}

#[tokio::test]
async fn what_was_asked_for_is_the_first_reason() {
    let mut pipeline = chain();
    pipeline.steps[0].cache.mode = CacheMode::Off;
    let options = PlanOptions {
        from: vec!["b".into()],
        ..PlanOptions::default()
    };
    let plan = World::default().plan(&pipeline, &options).await;
    assert_eq!(decisions(&plan), ["CacheOff", "Asked", "Asked"]);
}

#[tokio::test]
async fn a_lost_step_that_only_hits_fork_from_is_not_needed() {
    let mut world = full(&chain()).await;
    let plan = world.plain(&chain()).await;
    world.forget(&plan, 0);
    assert_eq!(
        plain(&world, &chain()).await,
        ["skip NotNeeded", "hit", "hit"]
    );
    world.forget(&plan, 1);
    assert_eq!(
        plain(&world, &chain()).await,
        ["skip NotNeeded", "skip NotNeeded", "hit"]
    );
    assert_eq!(world.count("lost"), 0);
}

#[tokio::test]
async fn a_lost_step_that_is_named_runs() {
    let mut world = full(&chain()).await;
    let plan = world.plain(&chain()).await;
    world.forget(&plan, 0);
    let plan = world.plan(&chain(), &targets(&["a", "c"])).await;
    assert_eq!(
        decisions(&plan),
        ["NoEntry", "ParentRuns(0)", "ParentRuns(1)"]
    );
}

#[tokio::test]
async fn a_lost_step_with_outputs_runs() {
    let mut pipeline = chain();
    pipeline.steps[0].outputs.push(Outputs {
        pattern: "app".into(),
        to: "".into(),
    });
    let mut world = full(&pipeline).await;
    let plan = world.plain(&pipeline).await;
    world.forget(&plan, 0);
    assert_eq!(
        plain(&world, &pipeline).await,
        ["NoEntry", "ParentRuns(0)", "ParentRuns(1)"]
    );
}

#[tokio::test]
async fn a_lost_step_runs_for_one_child_and_then_so_do_the_others() {
    let mut pipeline = chain();
    pipeline.steps.push(step("d").forking(0));
    let mut world = full(&pipeline).await;
    let plan = world.plain(&pipeline).await;
    world.forget(&plan, 0);
    world.forget(&plan, 3);
    assert_eq!(
        plain(&world, &pipeline).await,
        ["NoEntry", "ParentRuns(0)", "ParentRuns(1)", "ParentRuns(0)"]
    );
}

#[tokio::test]
async fn a_lost_step_that_steps_merely_need_runs() {
    let pipeline = pipeline(vec![step("a"), step("b").needing(&[0])]);
    let mut world = full(&pipeline).await;
    let plan = world.plain(&pipeline).await;
    world.forget(&plan, 0);
    assert_eq!(plain(&world, &pipeline).await, ["NoEntry", "hit"]);
}

#[tokio::test]
async fn a_child_outside_of_the_run_does_not_make_its_parent_superfluous() {
    let mut pipeline = chain();
    pipeline.steps.push(step("d").needing(&[1]));
    let mut world = full(&pipeline).await;
    let plan = world.plain(&pipeline).await;
    world.forget(&plan, 1);
    let plan = world.plan(&pipeline, &targets(&["d"])).await;
    assert_eq!(decisions(&plan)[1], "NoEntry");
}

#[tokio::test]
async fn a_condition_that_does_not_hold_skips_what_forks_from_the_step() {
    let mut pipeline = chain();
    pipeline.steps[1].condition = Some(Condition::Set("CI".into()));
    pipeline.steps.push(step("d").needing(&[1]));
    let mut world = World::default();
    let plan = world.plain(&pipeline).await;
    assert_eq!(
        decisions(&plan),
        ["NoEntry", "skip Condition", "skip Dependency(1)", "NoEntry"]
    );
    assert!(plan.steps[1].key.is_none() && plan.steps[1].selected);
    assert_eq!(plan.order.len(), 4);
    world.variables.insert("CI".into(), "1".into());
    assert_eq!(plain(&world, &pipeline).await[1], "ParentRuns(0)");
}

#[tokio::test]
async fn a_skipped_child_does_not_want_its_parent() {
    let mut pipeline = chain();
    pipeline.steps[2].condition = Some(Condition::Set("CI".into()));
    pipeline.steps.push(step("d").forking(1));
    let mut world = full(&pipeline).await;
    let plan = world.plain(&pipeline).await;
    world.forget(&plan, 1);
    assert_eq!(
        plain(&world, &pipeline).await,
        ["hit", "skip NotNeeded", "skip Condition", "hit"]
    );
    world.forget(&plan, 3);
    assert_eq!(
        plain(&world, &pipeline).await,
        ["hit", "NoEntry", "skip Condition", "ParentRuns(1)"]
    );
}

#[tokio::test]
async fn changed_paths_are_asked_for_once_and_only_when_a_condition_wants_them() {
    let mut pipeline = chain();
    let mut world = World::default();
    plain(&world, &pipeline).await;
    assert_eq!(world.count("changed"), 0);
    let changed = |pattern: &str| Some(Condition::Changed(vec![pattern.into()]));
    pipeline.steps[0].condition = changed("docs/");
    pipeline.steps.push(step("d"));
    pipeline.steps[3].condition = changed("*.rs");
    // Nobody knows what changed: everything has.
    assert_eq!(plain(&world, &pipeline).await[0], "NoEntry");
    assert_eq!(world.count("changed"), 1);
    world.changed = Some(vec!["src/main.rs".into(), "../docs/x".into()]);
    let decided = plain(&world, &pipeline).await;
    assert_eq!(decided[0], "skip Condition");
    assert_eq!(decided[3], "NoEntry");
    world.changed = Some(vec!["docs/deep/x.md".into()]);
    assert_eq!(plain(&world, &pipeline).await[0], "NoEntry");
}

/// `b` with a service that forks from `a`.
fn served() -> Pipeline {
    let service = Service {
        name: "db".into(),
        base: StepBase::Step(StepId(0)),
        run: "serve".into(),
        env: Default::default(),
        working_dir: "/".into(),
        user: None,
        limits: StepLimits::default(),
        ready: None,
    };
    let with = Step {
        services: vec![service],
        ..step("b")
    };
    pipeline(vec![step("a"), with])
}

#[tokio::test]
async fn what_a_service_forks_from_counts_as_a_parent() {
    let mut world = full(&served()).await;
    let plan = world.plain(&served()).await;
    assert_eq!(decisions(&plan), ["hit", "hit"]);
    world.forget(&plan, 0);
    assert_eq!(plain(&world, &served()).await, ["skip NotNeeded", "hit"]);
    world.forget(&plan, 1);
    assert_eq!(plain(&world, &served()).await, ["NoEntry", "ParentRuns(0)"]);
    let mut uncached = served();
    uncached.steps[0].cache.mode = CacheMode::Off;
    assert_eq!(
        plain(&world, &uncached).await,
        ["CacheOff", "ParentUncached(0)"]
    );
}

#[tokio::test]
async fn an_explicit_key_is_used_as_it_is() {
    let mut pipeline = chain();
    pipeline.steps[1].cache.mode = CacheMode::Key("mine".into());
    let mut world = World::default();
    let plan = world.plain(&pipeline).await;
    assert_eq!(plan.steps[1].key.as_deref(), Some("mine"));
    assert!(plan.steps[1].components.is_none());
    world.fill(&plan);
    let before = plan.steps[2].key.clone();
    pipeline.steps[1].run = "something else".into();
    let plan = world.plain(&pipeline).await;
    assert_eq!(decisions(&plan), ["hit", "hit", "hit"]);
    assert_eq!(plan.steps[2].key, before);
}

#[tokio::test]
async fn the_cache_is_asked_once_for_all() {
    let world = full(&chain()).await;
    let before = world.count("entries");
    let plan = world.plain(&chain()).await;
    assert_eq!(world.count("entries") - before, 1);
    assert_eq!(world.count("entries 3"), before + 1);
    assert!(matches!(
        &plan.steps[0].decision,
        Decision::Hit(CachedEntry { cost: Some(_), .. })
    ));
}
