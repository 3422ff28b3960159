//! What must come of a run in which nothing is cancelled, found without running it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::case::{Act, Case, LIMIT, Script};
use super::fake::{dependencies, forks};
use crate::event::{SkipReason, StepOutcome};
use crate::pipeline::{Step, StepId};
use crate::plan::Decision;

/// What must come of a step.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// This. Of a broken one only that it is.
    Ends(StepOutcome),
    /// It is skipped because of one of these.
    SkippedBecauseOf(BTreeSet<StepId>),
}

/// What must come of a run.
#[derive(Debug)]
pub(super) struct Model {
    /// By step.
    pub(super) steps: Vec<Expected>,
    /// By step: how often it is tried, rebuilds aside.
    pub(super) tries: Vec<u32>,
    /// By step: the result, if it has one.
    pub(super) values: Vec<Option<u64>>,
    /// The longest path, if nothing but the graph holds steps back.
    pub(super) critical_path: Duration,
    /// The time of all tries together.
    pub(super) work: Duration,
}

impl Model {
    pub(super) fn of(case: &Case) -> Self {
        let count = case.scripts.len();
        let nothing = Expected::SkippedBecauseOf(BTreeSet::new());
        let mut model = Self {
            steps: vec![nothing; count],
            tries: vec![0; count],
            values: vec![None; count],
            critical_path: Duration::ZERO,
            work: Duration::ZERO,
        };
        let mut over = vec![Duration::ZERO; count];
        for &id in &case.plan.order {
            let step = case.plan.pipeline.step(id);
            let roots = model.obstacles(case, step);
            let decision = &case.plan.steps[id.0].decision;
            model.steps[id.0] = match decision {
                Decision::Skip(reason) => Expected::Ends(StepOutcome::Skipped(reason.clone())),
                _ if !roots.is_empty() => Expected::SkippedBecauseOf(roots),
                _ => {
                    let is_hit = matches!(decision, Decision::Hit(_));
                    let (tries, end) = own_end(step, &case.scripts[id.0], is_hit);
                    let took = case.scripts[id.0].time * tries;
                    let begin = dependencies(step).iter().map(|it| over[it.0]).max();
                    over[id.0] = begin.unwrap_or_default() + took;
                    model.work += took;
                    model.tries[id.0] = tries;
                    if end.is_success() {
                        model.values[id.0] = Some(model.value(id, step));
                    }
                    Expected::Ends(end)
                }
            };
        }
        model.critical_path = over.into_iter().max().unwrap_or_default();
        model
    }

    /// The steps because of which this one cannot run.
    pub(super) fn obstacles(&self, case: &Case, step: &Step) -> BTreeSet<StepId> {
        let forks: BTreeSet<StepId> = forks(step).collect();
        let mut roots = BTreeSet::new();
        for other in dependencies(step) {
            let is_fork = forks.contains(&other);
            let allowed = case.plan.pipeline.step(other).allow_failure && !is_fork;
            match &self.steps[other.0] {
                Expected::SkippedBecauseOf(others) => roots.extend(others),
                Expected::Ends(end) if end.is_success() => {}
                Expected::Ends(StepOutcome::Skipped(SkipReason::Condition)) if !is_fork => {}
                Expected::Ends(StepOutcome::Skipped(_)) => {
                    roots.insert(other);
                }
                Expected::Ends(_) if allowed => {}
                Expected::Ends(_) => {
                    roots.insert(other);
                }
            }
        }
        roots
    }

    fn value(&self, id: StepId, step: &Step) -> u64 {
        let mut sum = 0_u64;
        for other in dependencies(step) {
            sum = sum
                .wrapping_mul(31)
                .wrapping_add(self.values[other.0].unwrap_or(1));
        }
        sum.wrapping_add(id.0 as u64 + 1)
    }

    /// Whether this is what had to come of the step.
    pub(super) fn agrees(&self, step: usize, end: &StepOutcome) -> bool {
        match (&self.steps[step], end) {
            (Expected::Ends(StepOutcome::Broken { .. }), StepOutcome::Broken { .. }) => true,
            (Expected::Ends(expected), end) => expected == end,
            (
                Expected::SkippedBecauseOf(roots),
                StepOutcome::Skipped(SkipReason::Dependency(root)),
            ) => roots.contains(root),
            _ => false,
        }
    }
}

/// How many tries a step has, and how the last one ends.
fn own_end(step: &Step, script: &Script, is_hit: bool) -> (u32, StepOutcome) {
    for attempt in 0.. {
        let act = &script.acts[(attempt as usize).min(script.acts.len() - 1)];
        let is_last = attempt == step.retries;
        let end = match act {
            Act::Succeed if is_hit && attempt == 0 && !script.lost => StepOutcome::Cached,
            Act::Succeed => StepOutcome::Succeeded,
            Act::Fail(exit_code) if is_last => StepOutcome::Failed {
                exit_code: *exit_code,
            },
            Act::TimeOut if is_last => StepOutcome::TimedOut { limit: LIMIT },
            Act::Fail(_) | Act::TimeOut => continue,
            Act::Break | Act::Panic | Act::Return(_) => StepOutcome::Broken {
                message: String::new(),
                hint: None,
            },
        };
        return (attempt + 1, end);
    }
    unreachable!("a step has a last try")
}
