//! Who depends on whom, among the steps of a run.

use crate::pipeline::StepId;
use crate::plan::Plan;

/// How a step depends on another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dependency {
    /// It, or a service of it, starts from the other's snapshot.
    Forks,
    /// It only comes after the other one.
    Needs,
}

/// The edges of one step. Without steps that do not belong to the run, and without doubles.
#[derive(Clone, Debug, Default)]
struct Links {
    /// What it forks from: its own base first, then its services'.
    forks: Vec<StepId>,
    /// What it needs, and does not fork from.
    needs: Vec<StepId>,
    /// What forks from it, in the plan's order.
    forked_by: Vec<StepId>,
    /// What needs it and does not fork from it, in the plan's order.
    needed_by: Vec<StepId>,
    /// Its place in the plan's order.
    position: usize,
}

/// The edges of all steps.
#[derive(Debug)]
pub(super) struct Graph(Vec<Links>);

impl Graph {
    pub(super) fn of(plan: &Plan) -> Self {
        let mut selected = vec![false; plan.pipeline.steps.len()];
        for step in &plan.order {
            selected[step.0] = true;
        }
        let mut links = vec![Links::default(); plan.pipeline.steps.len()];
        for (position, &step) in plan.order.iter().enumerate() {
            let (forks, needs) = dependencies(plan, step, &selected);
            for parent in &forks {
                links[parent.0].forked_by.push(step);
            }
            for parent in &needs {
                links[parent.0].needed_by.push(step);
            }
            let own = &mut links[step.0];
            own.forks = forks;
            own.needs = needs;
            own.position = position;
        }
        Self(links)
    }

    /// What the step forks from: its own base first.
    pub(super) fn forks(&self, step: StepId) -> &[StepId] {
        &self.0[step.0].forks
    }

    /// What forks from the step.
    pub(super) fn forked_by(&self, step: StepId) -> &[StepId] {
        &self.0[step.0].forked_by
    }

    /// What the step depends on.
    pub(super) fn dependencies(
        &self,
        step: StepId,
    ) -> impl Iterator<Item = (StepId, Dependency)> + use<'_> {
        let links = &self.0[step.0];
        with(&links.forks, Dependency::Forks).chain(with(&links.needs, Dependency::Needs))
    }

    /// What depends on the step.
    pub(super) fn dependants(
        &self,
        step: StepId,
    ) -> impl Iterator<Item = (StepId, Dependency)> + use<'_> {
        let links = &self.0[step.0];
        with(&links.forked_by, Dependency::Forks).chain(with(&links.needed_by, Dependency::Needs))
    }

    /// The one step that forks from this one, if it is one.
    pub(super) fn only_child(&self, step: StepId) -> Option<StepId> {
        match self.forked_by(step) {
            [child] => Some(*child),
            _ => None,
        }
    }

    /// The step's place in the plan's order.
    pub(super) fn position(&self, step: StepId) -> usize {
        self.0[step.0].position
    }
}

fn with(
    steps: &[StepId],
    dependency: Dependency,
) -> impl Iterator<Item = (StepId, Dependency)> + use<'_> {
    steps.iter().map(move |&step| (step, dependency))
}

fn dependencies(plan: &Plan, id: StepId, selected: &[bool]) -> (Vec<StepId>, Vec<StepId>) {
    let step = plan.pipeline.step(id);
    let mut forks = Vec::new();
    for source in step.sources() {
        if selected[source.0] && !forks.contains(&source) {
            forks.push(source);
        }
    }
    let mut needs: Vec<StepId> = step.needs.clone();
    needs.sort_unstable();
    needs.dedup();
    needs.retain(|need| selected[need.0] && !forks.contains(need));
    (forks, needs)
}
