//! What is known of a run so far.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hm_pipeline::{Plan, StepId, StepOutcome, StepResult};

use crate::output::sanitize::sanitize;

/// What does not change during a run.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) plan: Arc<Plan>,
    /// Number of the run.
    pub(super) run: u64,
    pub(super) log_directory: PathBuf,
    /// Names of the steps, as a terminal may show them.
    names: Vec<String>,
}

impl Facts {
    pub(super) fn new(plan: Arc<Plan>, run: u64, log_directory: PathBuf) -> Self {
        let steps = plan.pipeline.steps.iter();
        let names = steps
            .map(|step| sanitize(&step.name).into_owned())
            .collect();
        Self {
            plan,
            run,
            log_directory,
            names,
        }
    }

    /// Name of the pipeline, as a terminal may show it.
    pub(super) fn pipeline(&self) -> String {
        sanitize(&self.plan.pipeline.name).into_owned()
    }

    /// Name of a step, as a terminal may show it.
    pub(super) fn name(&self, step: StepId) -> &str {
        &self.names[step.0]
    }

    /// Name of a step as it is.
    pub(super) fn raw_name(&self, step: StepId) -> &str {
        &self.plan.pipeline.step(step).name
    }

    /// Names of all steps.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }
}

/// How many steps ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Counts {
    pub(super) succeeded: usize,
    pub(super) cached: usize,
    pub(super) failed: usize,
    pub(super) timed_out: usize,
    pub(super) cancelled: usize,
    pub(super) skipped: usize,
    pub(super) broken: usize,
}

impl Counts {
    /// Steps that are over.
    pub(super) fn done(&self) -> usize {
        self.succeeded + self.cached + self.all_failed() + self.cancelled + self.skipped
    }

    /// Steps that did not end well by themselves.
    pub(super) fn all_failed(&self) -> usize {
        self.failed + self.timed_out + self.broken
    }

    fn add(&mut self, outcome: &StepOutcome) {
        let count = match outcome {
            StepOutcome::Cached => &mut self.cached,
            StepOutcome::Succeeded => &mut self.succeeded,
            StepOutcome::Failed { .. } => &mut self.failed,
            StepOutcome::TimedOut { .. } => &mut self.timed_out,
            StepOutcome::Cancelled => &mut self.cancelled,
            StepOutcome::Skipped(_) => &mut self.skipped,
            // The contract has no other way to end.
            _ => &mut self.broken,
        };
        *count += 1;
    }
}

/// What became of the steps so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Steps of the run.
    pub(super) steps: usize,
    pub(super) counts: Counts,
    /// Time that the cached steps took when they ran.
    pub(super) saved: Duration,
    /// The steps that are over, in the order of their ends.
    pub(super) ended: Vec<(StepId, StepResult)>,
}

impl Tally {
    /// A step is over.
    pub(super) fn end(&mut self, step: StepId, result: &StepResult) {
        self.counts.add(&result.outcome);
        self.saved += result.detail.saved.unwrap_or_default();
        self.ended.push((step, result.clone()));
    }
}
