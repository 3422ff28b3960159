//! Random graphs: what always holds.

use proptest::prelude::*;

use super::fake::World;
use crate::event::SkipReason;
use crate::pipeline::{CacheMode, Outputs, Pipeline, StepBase, StepId};
use crate::plan::{Decision, Plan, PlanOptions};
use crate::testing::{pipeline, step};

/// What is random about one step.
#[derive(Clone, Debug)]
struct Shape {
    parent: Option<prop::sample::Index>,
    needs: Vec<prop::sample::Index>,
    uncached: bool,
    outputs: bool,
    named: bool,
    forgotten: bool,
    remade: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        prop::option::weighted(0.8, any::<prop::sample::Index>()),
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        prop::bool::weighted(0.05),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.4),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(parent, needs, uncached, outputs, named, forgotten, remade)| Shape {
                parent,
                needs,
                uncached,
                outputs,
                named,
                forgotten,
                remade,
            },
        )
}

/// Steps that refer to earlier ones, put into another order.
fn project(shapes: &[Shape], turned: usize) -> Pipeline {
    let count = shapes.len();
    let place = |i: usize| (i + turned) % count;
    let mut steps = vec![step("x"); count];
    for (i, shape) in shapes.iter().enumerate() {
        let mut one = step(&format!("s{i}"));
        if i > 0 {
            if let Some(parent) = &shape.parent {
                one = one.forking(place(parent.index(i)));
            }
            let needs = shape.needs.iter();
            one.needs = needs.map(|need| StepId(place(need.index(i)))).collect();
        }
        if shape.uncached {
            one.cache.mode = CacheMode::Off;
        }
        if shape.outputs {
            one.outputs.push(Outputs {
                pattern: "app".into(),
                to: "".into(),
            });
        }
        steps[place(i)] = one;
    }
    pipeline(steps)
}

/// A plan over what the shapes leave of a full cache.
fn planned(shapes: &[Shape], project: &Pipeline, turned: usize) -> Plan {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut world = World::default();
    let full = runtime.block_on(world.plain(project));
    world.fill(&full);
    let mut options = PlanOptions::default();
    for (i, shape) in shapes.iter().enumerate() {
        let place = (i + turned) % shapes.len();
        if let Some(key) = &full.steps[place].key {
            if shape.remade {
                world.cache.get_mut(key).unwrap().snapshot = hm_vm_core::SnapshotId::new("new");
            }
            if shape.forgotten {
                world.cache.remove(key);
            }
        }
        if shape.named {
            options.targets.push(format!("s{i}"));
        }
    }
    runtime.block_on(world.plan(project, &options))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_rule_holds(
        shapes in prop::collection::vec(shape(), 1..24),
        turned in 0..24_usize,
    ) {
        let project = project(&shapes, turned);
        let plan = planned(&shapes, &project, turned);
        let named = shapes.iter().any(|shape| shape.named);
        let is_named = |id: StepId| {
            let name = &project.step(id).name;
            shapes.iter().enumerate().any(|(i, shape)| shape.named && format!("s{i}") == *name)
        };
        let skipped = |id: &StepId| plan.steps[id.0].decision == Decision::Skip(SkipReason::NotNeeded);
        for id in project.ids() {
            let decided = &plan.steps[id.0];
            if !decided.selected {
                prop_assert!(!plan.order.contains(&id));
                prop_assert!(named && !is_named(id));
                continue;
            }
            let parent = plan.parent(id);
            if matches!(decided.decision, Decision::Hit(_)) {
                prop_assert!(parent.is_none_or(|parent| !plan.runs(parent)), "a hit on what runs");
            }
            if let Some(parent) = parent.filter(|parent| plan.runs(*parent)) {
                prop_assert!(plan.runs(id), "{parent} runs, and {id} does not");
            }
            if skipped(&id) {
                let children: Vec<_> = plan.children(id).into_iter()
                    .filter(|child| plan.steps[child.0].selected).collect();
                prop_assert!(!children.is_empty());
                prop_assert!(children.iter().all(|child| !plan.runs(*child)));
                prop_assert!(project.step(id).outputs.is_empty() && !is_named(id));
            }
        }
    }

    #[test]
    fn a_step_that_runs_has_a_reason_that_is_true(
        shapes in prop::collection::vec(shape(), 1..24),
        turned in 0..24_usize,
    ) {
        use crate::plan::RunReason::*;
        let project = project(&shapes, turned);
        let plan = planned(&shapes, &project, turned);
        for id in plan.order.iter().copied() {
            let planned = &plan.steps[id.0];
            let Decision::Run(reason) = &planned.decision else { continue };
            let holds = match reason {
                NoEntry => plan.parent(id).is_none_or(|parent| !plan.runs(parent)),
                ParentRuns(parent) => plan.parent(id) == Some(*parent) && plan.runs(*parent),
                ParentRemade(parent) => matches!(plan.steps[parent.0].decision, Decision::Hit(_)),
                CacheOff => project.step(id).cache.mode == CacheMode::Off && planned.key.is_none(),
                ParentUncached(parent) => planned.key.is_none() && plan.steps[parent.0].key.is_none(),
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert!(holds, "{id}: {reason:?}");
        }
    }

    #[test]
    fn the_order_is_topological_and_complete(
        shapes in prop::collection::vec(shape(), 1..24),
        turned in 0..24_usize,
    ) {
        let project = project(&shapes, turned);
        let plan = planned(&shapes, &project, turned);
        let mut seen = vec![false; project.steps.len()];
        for id in &plan.order {
            prop_assert!(project.step(*id).waits_for().all(|other| seen[other.0]));
            prop_assert!(!std::mem::replace(&mut seen[id.0], true));
        }
        let selected: Vec<bool> = plan.steps.iter().map(|step| step.selected).collect();
        prop_assert_eq!(seen, selected);
    }

    #[test]
    fn keys_change_for_the_changed_step_and_what_forks_from_it(
        shapes in prop::collection::vec(shape(), 1..24),
        changed in any::<prop::sample::Index>(),
        imaged in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut project = project(&shapes, 0);
        let before = runtime.block_on(World::default().plain(&project));
        let changed = changed.index(shapes.len());
        let one = &mut project.steps[changed];
        match &mut one.base {
            StepBase::Image(image) if imaged => image.push('2'),
            _ => one.run.push_str("; true"),
        }
        let after = runtime.block_on(World::default().plain(&project));
        let mut differs = vec![false; shapes.len()];
        differs[changed] = true;
        for id in &after.order {
            if let Some(parent) = after.parent(*id) {
                differs[id.0] |= differs[parent.0];
            }
            let (old, new) = (&before.steps[id.0].key, &after.steps[id.0].key);
            prop_assert_eq!(old.is_some(), new.is_some());
            if new.is_some() {
                prop_assert_eq!(old != new, differs[id.0]);
            }
        }
    }
}
