//! Which steps belong to a run, in which order, and who goes on in whose VM.

use super::fake::{World, order, targets};
use crate::pipeline::{Pipeline, StepBase, StepId};
use crate::plan::{self, Plan, PlanError, PlanOptions};
use crate::testing::{pipeline, plan, step};

/// A matrix `test` on `build`, which needs `lint`; and `docs` alone.
fn project() -> Pipeline {
    pipeline(vec![
        step("test[v=1]").forking(2),
        step("test[v=2]").forking(2),
        step("build").needing(&[3]),
        step("lint"),
        step("docs"),
    ])
}

async fn error(options: &PlanOptions) -> PlanError {
    let error = Plan::make(project(), &World::default(), options)
        .await
        .unwrap_err();
    error.downcast_ref::<PlanError>().unwrap().clone()
}

#[tokio::test]
async fn the_order_is_that_of_the_file_where_it_is_free() {
    let plan = World::default().plain(&project()).await;
    assert_eq!(
        order(&plan),
        ["lint", "build", "test[v=1]", "test[v=2]", "docs"]
    );
}

#[tokio::test]
async fn targets_bring_what_they_fork_from_and_need() {
    let world = World::default();
    let plan = world.plan(&project(), &targets(&["test[v=2]"])).await;
    assert_eq!(order(&plan), ["lint", "build", "test[v=2]"]);
    let selected: Vec<bool> = plan.steps.iter().map(|step| step.selected).collect();
    assert_eq!(selected, [false, true, true, true, false]);
    assert!(plan.steps[0].key.is_none());
}

#[tokio::test]
async fn the_name_of_a_matrix_stands_for_all_of_it() {
    let world = World::default();
    let plan = world.plan(&project(), &targets(&["test"])).await;
    assert_eq!(order(&plan), ["lint", "build", "test[v=1]", "test[v=2]"]);
}

#[tokio::test]
async fn an_unknown_step_is_named_with_what_resembles_it() {
    let error = error(&targets(&["biuld"])).await;
    assert_eq!(
        error,
        PlanError::UnknownStep {
            name: "biuld".into(),
            similar: vec!["build".into()],
        }
    );
    assert_eq!(error.hint().unwrap(), "did you mean \"build\"?");
}

#[tokio::test]
async fn to_begin_from_a_step_outside_of_the_run_is_refused() {
    let mut options = targets(&["docs"]);
    options.from = vec!["lint".into()];
    let expected = PlanError::NotSelected {
        name: "lint".into(),
    };
    assert_eq!(error(&options).await, expected);
    options.from = vec!["lnt".into()];
    assert!(matches!(
        error(&options).await,
        PlanError::UnknownStep { .. }
    ));
}

#[tokio::test]
async fn a_cycle_is_an_error() {
    let cycle = pipeline(vec![
        step("a").needing(&[1]),
        step("b").forking(0),
        step("c"),
    ]);
    let error = Plan::make(cycle, &World::default(), &PlanOptions::default())
        .await
        .unwrap_err();
    let expected = PlanError::Cycle {
        steps: vec!["a".into(), "b".into()],
    };
    assert_eq!(error.downcast_ref(), Some(&expected));
}

#[tokio::test]
async fn a_target_is_found_among_a_thousand_alike() {
    let steps = (0..1000).map(|i| step(&format!("s{i}"))).collect();
    let world = World::default();
    let plan = world.plan(&pipeline(steps), &targets(&["s500"])).await;
    assert_eq!(order(&plan), ["s500"]);
}

#[test]
fn an_only_child_goes_on_in_its_parents_vm() {
    let chain = || vec![step("a"), step("b").forking(0)];
    let child_of = |steps| plan(pipeline(steps)).only_child(StepId(0));
    assert_eq!(child_of(chain()), Some(StepId(1)));
    let mut two = chain();
    two.push(step("c").forking(0));
    assert_eq!(child_of(two), None);
    let mut other_limits = chain();
    other_limits[1].limits.cpus = Some(1);
    assert_eq!(child_of(other_limits), None);
    let mut other_network = chain();
    other_network[1].network = hm_vm_core::NetworkPolicy::Outbound;
    assert_eq!(child_of(other_network), None);
}

#[tokio::test]
async fn nobody_goes_on_where_nothing_runs() {
    let project = pipeline(vec![step("a"), step("b").forking(0), step("c").forking(0)]);
    let mut world = World::default();
    let first = world.plain(&project).await;
    world.fill(&first);
    world.forget(&first, 1);
    let second = world.plain(&project).await;
    assert_eq!(second.only_child(StepId(0)), None);
    assert_eq!(first.children(StepId(0)), [StepId(1), StepId(2)]);
    assert_eq!(first.forks().children(StepId(0)), [StepId(1), StepId(2)]);
    assert_eq!(first.parent(StepId(2)), Some(StepId(0)));
    let named = world.plan(&project, &targets(&["b"])).await;
    assert!(named.runs(StepId(1)) && !named.runs(StepId(2)));
}

#[test]
fn the_images_of_a_run_are_those_of_its_steps() {
    let mut project = project();
    project.steps[3].base = StepBase::Image("lint:1".into());
    let images = |options: &PlanOptions| {
        let images = plan::images(&project, options).expect("images");
        images.into_iter().collect::<Vec<_>>()
    };
    let all = images(&PlanOptions::default());
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(images(&targets(&["lint"])), ["lint:1"]);
    assert_eq!(images(&targets(&["test"])), all);
    assert!(!images(&targets(&["docs"])).contains(&"lint:1".to_owned()));
    let unknown = plan::images(&project, &targets(&["biuld"]));
    assert!(matches!(unknown, Err(PlanError::UnknownStep { .. })));
}
