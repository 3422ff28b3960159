//! What leads from which step to which.

use std::collections::BTreeSet;

use crate::pipeline::StepId;
use crate::plan::{Decision, Plan};

/// Why one step comes after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EdgeKind {
    /// It forks from the other.
    From,
    /// A service of it does.
    Service,
    /// It needs the other.
    Needs,
}

impl EdgeKind {
    /// Its name in pictures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::Service => "service",
            Self::Needs => "needs",
        }
    }
}

/// One step comes after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) from: StepId,
    pub(super) to: StepId,
    pub(super) kind: EdgeKind,
}

/// All edges of a plan, each pair of steps once, in order: of several reasons, the strongest one.
pub(super) fn of(plan: &Plan) -> Vec<Edge> {
    let mut edges = Vec::new();
    for to in &plan.order {
        let step = plan.pipeline.step(*to);
        let parent = step.parent().map(|id| (id, EdgeKind::From));
        let sources = step.sources().map(|id| (id, EdgeKind::Service));
        let needs = step.needs.iter().map(|id| (*id, EdgeKind::Needs));
        let mut seen = BTreeSet::new();
        for (from, kind) in parent.into_iter().chain(sources).chain(needs) {
            if seen.insert(from) {
                edges.push(Edge {
                    from,
                    to: *to,
                    kind,
                });
            }
        }
    }
    edges
}

/// What becomes of a step, as one word.
pub(super) fn fate(plan: &Plan, id: StepId) -> &'static str {
    match plan.steps[id.0].decision {
        Decision::Hit(_) => "cached",
        Decision::Run(_) => "runs",
        Decision::Skip(_) => "skipped",
    }
}
