//! Which step forks from which.

use super::model::{Decision, Plan};
use crate::pipeline::{Pipeline, Step, StepBase, StepId};

/// Which step forks from which, looked up at once for all steps.
#[derive(Clone, Debug)]
pub struct Forks {
    children: Vec<Vec<StepId>>,
    users: Vec<Vec<StepId>>,
}

impl Forks {
    /// Those of a pipeline.
    pub fn of(pipeline: &Pipeline) -> Self {
        let mut forks = Self {
            children: vec![Vec::new(); pipeline.steps.len()],
            users: vec![Vec::new(); pipeline.steps.len()],
        };
        for id in pipeline.ids() {
            let step = pipeline.step(id);
            if let Some(parent) = step.parent() {
                forks.children[parent.0].push(id);
            }
            for source in step.sources() {
                let users = &mut forks.users[source.0];
                if users.last() != Some(&id) {
                    users.push(id);
                }
            }
        }
        forks
    }

    /// The steps that fork from a step, in order.
    pub fn children(&self, id: StepId) -> &[StepId] {
        &self.children[id.0]
    }

    /// The steps that fork from a step, or of which a service does, in order, each once.
    pub fn users(&self, id: StepId) -> &[StepId] {
        &self.users[id.0]
    }
}

impl Step {
    /// The step that it forks from.
    pub fn parent(&self) -> Option<StepId> {
        self.base.step()
    }

    /// The steps whose snapshots it starts from: its parent, then those of its services. May name one twice.
    pub fn sources(&self) -> impl Iterator<Item = StepId> {
        let services = self.services.iter();
        self.parent()
            .into_iter()
            .chain(services.filter_map(|service| service.base.step()))
    }

    /// The steps that must be over before it starts: its sources, then what it needs. May name one twice.
    pub fn waits_for(&self) -> impl Iterator<Item = StepId> {
        self.sources().chain(self.needs.iter().copied())
    }
}

impl StepBase {
    /// The step, if it is one.
    pub fn step(&self) -> Option<StepId> {
        match self {
            Self::Image(_) => None,
            Self::Step(id) => Some(*id),
        }
    }
}

impl Plan {
    /// The step that a step forks from.
    pub fn parent(&self, id: StepId) -> Option<StepId> {
        self.pipeline.step(id).parent()
    }

    /// The steps that fork from a step, in order, whether or not they belong to the run. Looks at all steps:
    /// who asks for many takes [`forks`](Self::forks).
    pub fn children(&self, id: StepId) -> Vec<StepId> {
        let ids = self.pipeline.ids();
        ids.filter(|child| self.parent(*child) == Some(id))
            .collect()
    }

    /// Which step forks from which.
    pub fn forks(&self) -> Forks {
        Forks::of(&self.pipeline)
    }

    /// The step that may go on in a step's VM: see [`only_child_in`](Self::only_child_in), which is for
    /// those who ask for many.
    pub fn only_child(&self, id: StepId) -> Option<StepId> {
        self.only_child_in(&self.forks(), id)
    }

    /// The step that may go on in a step's VM, as nobody else forks from it in this run, and the two want the
    /// same of it: both run, have the same limits and network, and no services.
    pub fn only_child_in(&self, forks: &Forks, id: StepId) -> Option<StepId> {
        if !self.runs(id) {
            return None;
        }
        let mut running = forks.users(id).iter().filter(|user| self.runs(**user));
        let child = *running.next()?;
        if running.next().is_some() {
            return None;
        }
        let (one, other) = (self.pipeline.step(id), self.pipeline.step(child));
        let alike = one.limits == other.limits && one.network == other.network;
        let alone = one.services.is_empty() && other.services.is_empty();
        (alike && alone).then_some(child)
    }

    /// Whether a step would run.
    pub fn runs(&self, id: StepId) -> bool {
        let step = &self.steps[id.0];
        step.selected && matches!(step.decision, Decision::Run(_))
    }
}
