//! What must come of a run in which nothing is cancelled, found without running it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::case::{Act, Case, LIMIT, Script};
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
                    let begin = step.waits_for().map(|it| over[it.0]).max();
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
        let mut roots = BTreeSet::new();
        for other in step.sources() {
            roots.extend(self.roots(other));
        }
        for other in &step.needs {
            let reasons = self.roots(*other);
            // What the plan leaves out comes first, so it is the reason where it is one of several.
            let left_out = reasons.iter().any(|root| is_left_out(case, *root));
            let has_run = self.tries[other.0] > 0;
            let allowed = has_run && case.plan.pipeline.step(*other).allow_failure;
            if !left_out && !allowed {
                roots.extend(reasons);
            }
        }
        let left_out: BTreeSet<StepId> = roots
            .iter()
            .copied()
            .filter(|root| is_left_out(case, *root))
            .collect();
        if left_out.is_empty() { roots } else { left_out }
    }

    /// The steps because of which one that forks from this one cannot run.
    fn roots(&self, step: StepId) -> BTreeSet<StepId> {
        match &self.steps[step.0] {
            Expected::SkippedBecauseOf(roots) => roots.clone(),
            Expected::Ends(end) if end.is_success() => BTreeSet::new(),
            Expected::Ends(_) => BTreeSet::from([step]),
        }
    }

    fn value(&self, id: StepId, step: &Step) -> u64 {
        let mut sum = 0_u64;
        for other in step.waits_for() {
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

fn is_left_out(case: &Case, step: StepId) -> bool {
    matches!(case.plan.steps[step.0].decision, Decision::Skip(_))
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
