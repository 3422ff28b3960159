//! Pipelines of any form.

use std::num::NonZeroUsize;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::ScheduleOptions;
use super::case::{Act, Case, Script, hit, locked, ms};
use super::model::Model;
use crate::event::SkipReason;
use crate::pipeline::{Service, StepBase, StepId, StepLimits};
use crate::plan::{Decision, RunReason};
use crate::testing;

/// A step, with its parents as places among the earlier ones.
#[derive(Clone, Debug)]
struct Sketch {
    base: Option<Index>,
    service: Option<Index>,
    needs: Vec<Index>,
    time: u64,
    acts: Vec<Act>,
    retries: u32,
    allow_failure: bool,
    decision: Decision,
    limits: StepLimits,
    locks: (bool, bool),
    gone: bool,
    lost: bool,
    /// Where it comes in the pipeline, whose order is not that of the plan.
    place: u32,
}

/// What the generated steps may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// Steps may end badly.
    pub(super) failures: bool,
    /// Results that the plan counts on may be gone.
    pub(super) losses: bool,
    /// Steps may declare what they take up, and name cache directories.
    pub(super) limits: bool,
}

/// A plan of up to 24 steps. All times are even numbers of milliseconds.
pub(super) fn case(kind: Kind) -> impl Strategy<Value = Case> {
    vec(sketch(kind), 0..25).prop_map(build)
}

/// Room for few steps at once.
pub(super) fn options() -> impl Strategy<Value = ScheduleOptions> {
    (1_usize..6, 1_u32..6, 1_u64..6, any::<bool>()).prop_map(
        |(parallelism, cpus, memory_mib, keep_going)| ScheduleOptions {
            parallelism: NonZeroUsize::new(parallelism).unwrap(),
            cpus,
            memory_mib,
            keep_going,
            ..ScheduleOptions::default()
        },
    )
}

fn sometimes(allowed: bool, probability: f64) -> impl Strategy<Value = bool> {
    prop::bool::weighted(if allowed { probability } else { 0.0 })
}

fn sketch(kind: Kind) -> impl Strategy<Value = Sketch> {
    let edges = (
        prop::option::of(any::<Index>()),
        prop::option::weighted(0.1, any::<Index>()),
        vec(any::<Index>(), 0..3),
    );
    let behaviour = (
        0_u64..6,
        acts(kind),
        0_u32..3,
        sometimes(kind.failures, 0.3),
        decision(kind),
    );
    let room = (
        limits(kind),
        sometimes(kind.limits, 0.2),
        sometimes(kind.limits, 0.2),
    );
    let losses = (sometimes(kind.losses, 0.3), sometimes(kind.losses, 0.3));
    (edges, behaviour, room, losses, any::<u32>()).prop_map(
        |(edges, behaviour, room, losses, place)| Sketch {
            base: edges.0,
            service: edges.1,
            needs: edges.2,
            time: behaviour.0 * 2,
            acts: behaviour.1,
            retries: behaviour.2,
            allow_failure: behaviour.3,
            decision: behaviour.4,
            limits: room.0,
            locks: (room.1, room.2),
            gone: losses.0,
            lost: losses.1,
            place,
        },
    )
}

fn acts(kind: Kind) -> BoxedStrategy<Vec<Act>> {
    if !kind.failures {
        return Just(vec![Act::Succeed]).boxed();
    }
    let act = prop_oneof![
        2 => Just(Act::Succeed),
        3 => (1..140).prop_map(Act::Fail),
        1 => Just(Act::TimeOut),
    ];
    let last = prop_oneof![Just(Act::Break), Just(Act::Panic), Just(Act::Fail(130))];
    prop_oneof![
        12 => Just(vec![Act::Succeed]),
        3 => vec(act, 1..4),
        1 => last.prop_map(|act| vec![act]),
    ]
    .boxed()
}

fn decision(kind: Kind) -> impl Strategy<Value = Decision> {
    prop_oneof![
        8 => Just(Decision::Run(RunReason::NoEntry)),
        4 => Just(hit()),
        u32::from(kind.failures) => Just(Decision::Skip(SkipReason::Condition)),
        u32::from(kind.losses) => Just(Decision::Skip(SkipReason::NotNeeded)),
    ]
}

fn limits(kind: Kind) -> BoxedStrategy<StepLimits> {
    if !kind.limits {
        return Just(StepLimits::default()).boxed();
    }
    (prop::option::of(0_u32..7), prop::option::of(0_u64..7))
        .prop_map(|(cpus, memory_mib)| StepLimits {
            cpus,
            memory_mib,
            ..StepLimits::default()
        })
        .boxed()
}

fn build(sketches: Vec<Sketch>) -> Case {
    let count = sketches.len();
    let mut order: Vec<StepId> = (0..count).map(StepId).collect();
    order.sort_by_key(|it| (sketches[it.0].place, it.0));
    let mut steps = vec![(testing::step("none"), Script::default()); count];
    for (position, sketch) in sketches.iter().enumerate() {
        let earlier = |index: &Index| order[index.index(position)];
        let id = order[position];
        let mut step = testing::step(&format!("s{id}"));
        if position > 0 {
            if let Some(base) = &sketch.base {
                step.base = StepBase::Step(earlier(base));
            }
            step.services = sketch
                .service
                .iter()
                .map(|it| service(earlier(it)))
                .collect();
            step.needs = sketch.needs.iter().map(earlier).collect();
        }
        step.retries = sketch.retries;
        step.allow_failure = sketch.allow_failure;
        step.limits = sketch.limits;
        let (first, second) = sketch.locks;
        step.caches.extend(
            [(first, "x"), (second, "y")]
                .map(|(wanted, name)| wanted.then(|| locked(name)))
                .into_iter()
                .flatten(),
        );
        steps[id.0] = (step, script(sketch));
    }
    let mut case = Case::new(steps);
    for (position, sketch) in sketches.into_iter().enumerate() {
        case.plan.steps[order[position].0].decision = sketch.decision;
    }
    case.plan.order = order;
    without_impossible_remakes(case)
}

fn script(sketch: &Sketch) -> Script {
    let is_hit = matches!(sketch.decision, Decision::Hit(_));
    let lost = is_hit && sketch.lost;
    Script {
        time: ms(sketch.time),
        acts: if is_hit && !lost {
            vec![Act::Succeed]
        } else {
            sketch.acts.clone()
        },
        gone: sketch.gone,
        lost,
        ..Script::default()
    }
}

fn service(base: StepId) -> Service {
    Service {
        name: "service".into(),
        base: StepBase::Step(base),
        run: String::new(),
        env: Default::default(),
        working_dir: "/".into(),
        user: None,
        limits: StepLimits::default(),
        ready: None,
    }
}

/// A step that is not needed, but could not be made if it were, is run instead: what becomes of those that
/// miss it has its own tests.
fn without_impossible_remakes(mut case: Case) -> Case {
    for id in case.plan.order.clone() {
        let not_needed = Decision::Skip(SkipReason::NotNeeded);
        let step = case.plan.pipeline.step(id);
        if case.plan.steps[id.0].decision == not_needed
            && !Model::of(&case).obstacles(&case, step).is_empty()
        {
            case.plan.steps[id.0].decision = Decision::Run(RunReason::NoEntry);
        }
    }
    case
}
