//! From a plan and the results of a run to its record.

use hm_vm_core::SnapshotId;

use super::model::{
    Counts, InjectRecord, RunRecord, RunState, RunSummary, StepRecord, Surroundings, millis,
};
use crate::event::{StepOutcome, StepResult, Verdict};
use crate::pipeline::{Step, StepId};
use crate::plan::Plan;
use crate::schedule::RunOutcome;
use crate::words;

/// The steps of a plan, as far as they are known before they run.
pub(super) fn planned_steps(plan: &Plan) -> Vec<StepRecord> {
    plan.order.iter().map(|id| planned(plan, *id)).collect()
}

fn planned(plan: &Plan, id: StepId) -> StepRecord {
    let (step, planned) = (plan.pipeline.step(id), &plan.steps[id.0]);
    let injects = planned.injects.iter().map(|inject| InjectRecord {
        target: inject.target.clone(),
        directory: inject.source.directory.to_string_lossy().into_owned(),
        digest: inject.digest.clone(),
    });
    StepRecord {
        name: step.name.clone(),
        group: step.group.clone(),
        place: id.0,
        key: planned.key.clone(),
        components: planned.components.clone(),
        surroundings: planned.components.is_none().then(|| surroundings(step)),
        injects: injects.collect(),
        reason: words::decision(plan, &planned.decision),
        ..StepRecord::default()
    }
}

fn surroundings(step: &Step) -> Surroundings {
    Surroundings {
        working_dir: step.working_dir.clone(),
        env: step.env.clone(),
        user: step.user.clone(),
    }
}

impl StepRecord {
    /// What is known of a step when it is over.
    pub fn of(plan: &Plan, id: StepId, result: &StepResult) -> Self {
        let mut record = planned(plan, id);
        record.end(plan, result);
        record
    }

    fn end(&mut self, plan: &Plan, result: &StepResult) {
        let detail = &result.detail;
        let text = |snapshot: &SnapshotId| snapshot.to_string();
        if detail.key.is_some() && detail.key != self.key {
            // Its files changed after the plan was made: the components are not those of this key.
            self.key.clone_from(&detail.key);
            self.components = None;
            self.surroundings = Some(surroundings(plan.pipeline.step(StepId(self.place))));
        }
        self.outcome = Some(result.outcome.name().into());
        self.message = words::outcome(plan, &result.outcome);
        self.exit_code = match result.outcome {
            StepOutcome::Failed { exit_code } => Some(exit_code),
            StepOutcome::Succeeded => Some(0),
            _ => None,
        };
        self.allowed = result.allowed;
        self.attempt = result.attempt;
        self.took_ms = (result.attempt > 0).then(|| millis(result.took));
        self.saved_ms = detail.saved.map(millis);
        self.fetched_bytes = detail.fetched_bytes;
        self.snapshot = detail.snapshot.as_ref().map(text);
        self.kept = detail.kept.as_ref().map(text);
        let log = detail.log.as_deref().and_then(|path| path.file_name());
        self.log = log.map(|name| name.to_string_lossy().into_owned());
    }
}

impl RunRecord {
    /// The record of a run that is over. `summary` is that of its beginning.
    pub fn finished(summary: RunSummary, plan: &Plan, outcome: &RunOutcome, ended: u64) -> Self {
        let mut record = Self {
            summary,
            steps: Vec::with_capacity(plan.order.len()),
        };
        for id in &plan.order {
            let mut step = planned(plan, *id);
            if let Some(Some(result)) = outcome.results.get(id.0) {
                step.end(plan, result);
                record.summary.counts.add(&result.outcome);
                let saved = step.saved_ms.unwrap_or_default();
                record.summary.saved_ms = record.summary.saved_ms.saturating_add(saved);
            }
            record.steps.push(step);
        }
        let (step, exit_code) = match outcome.verdict {
            Verdict::Succeeded => (None, Some(0)),
            Verdict::Failed { step, exit_code } => (Some(step), Some(exit_code)),
            Verdict::TimedOut { step } => (step, None),
            Verdict::Cancelled => (None, None),
        };
        let summary = &mut record.summary;
        summary.state = RunState::Finished;
        summary.ended = Some(ended);
        summary.verdict = Some(outcome.verdict.name().into());
        summary.verdict_step = step.map(|id| plan.pipeline.step(id).name.clone());
        summary.exit_code = exit_code;
        record
    }
}

impl Counts {
    fn add(&mut self, outcome: &StepOutcome) {
        let count = match outcome {
            StepOutcome::Cached => &mut self.cached,
            StepOutcome::Succeeded => &mut self.succeeded,
            StepOutcome::Cancelled => &mut self.cancelled,
            StepOutcome::Skipped(_) => &mut self.skipped,
            StepOutcome::Failed { .. }
            | StepOutcome::TimedOut { .. }
            | StepOutcome::Broken { .. } => &mut self.failed,
        };
        *count += 1;
    }
}
