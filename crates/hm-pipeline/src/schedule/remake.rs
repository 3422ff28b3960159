//! Steps that run again because the snapshot that they made is gone.

use std::time::Duration;

use super::progress::{Course, Run, Stage, Try, broken};
use super::turn::Turn;
use crate::event::{RunEvent, SkipReason, StepDetail, StepOutcome, StepResult};
use crate::pipeline::StepId;

/// How often a step is made again at most in one run.
pub const MAX_REMAKES: u32 = 3;

impl Run {
    /// A try found that the snapshot to fork from is gone. It is not running any more.
    pub(super) fn parent_missing(&mut self, step: StepId, ended: &Try) {
        // Whoever began before a parent was made again may have looked for the old snapshot.
        if self.remakes_of_forks(step) == ended.remakes
            && let Err(message) = self.remake_a_fork(step)
        {
            let took = ended.began.elapsed();
            let result = self.result(step, broken(message), took, StepDetail::default());
            self.give_result(step, result);
            return;
        }
        self.enqueue_if_met(step, Turn::Ordered);
    }

    /// How often the steps that it forks from were made again.
    pub(super) fn remakes_of_forks(&self, step: StepId) -> u32 {
        let forks = self.graph.forks(step).iter();
        forks.map(|it| self.steps[it.0].remakes).sum()
    }

    /// Has a step made again that this one forks from. Fails with what is wrong with this one.
    ///
    /// With services it may fork from several, and nobody says which one is gone: the one that was made again
    /// least often is the likeliest.
    fn remake_a_fork(&mut self, step: StepId) -> Result<(), String> {
        let forks = self.graph.forks(step).iter();
        let Some(&parent) = forks.min_by_key(|it| self.steps[it.0].remakes) else {
            return Err("the snapshot of a step is gone, but it forks from none".to_owned());
        };
        let name = &self.step(parent).name;
        if self.steps[parent.0].remakes >= MAX_REMAKES {
            return Err(format!(
                "the snapshot of {name} is gone again, after it was made again {MAX_REMAKES} times"
            ));
        }
        let mut dependencies = self.graph.dependencies(parent);
        if let Some((other, _)) =
            dependencies.find(|&(other, dependency)| self.obstacle(other, dependency).is_some())
        {
            let other = &self.step(other).name;
            return Err(format!(
                "the snapshot of {name} is gone, and cannot be made again: {other} did not end well"
            ));
        }
        drop(dependencies);
        self.begin_remake(parent);
        Ok(())
    }

    fn begin_remake(&mut self, step: StepId) {
        let name = &self.step(step).name;
        self.tell(&RunEvent::Notice {
            step: Some(step),
            text: format!("the snapshot of {name} is gone: it is made again"),
        });
        let progress = &mut self.steps[step.0];
        progress.remakes += 1;
        progress.failures = 0;
        progress.stage = Stage::Waiting;
        for child in self.graph.forked_by(step).to_vec() {
            self.dequeue(child);
            self.steps[child.0].unmet += 1;
        }
        self.enqueue_if_met(step, Turn::Ordered);
    }

    /// What a step depends on that is to be made again did not end well.
    pub(super) fn remake_hindered(&mut self, step: StepId, reason: &SkipReason) {
        let outcome = match reason {
            SkipReason::Dependency(other) => {
                let other = &self.step(*other).name;
                broken(format!("{other} did not end well"))
            }
            _ => broken("the run has failed"),
        };
        let result = self.result(step, outcome, Duration::ZERO, StepDetail::default());
        self.remade(step, result);
    }

    /// A step that was to be made again is over.
    pub(super) fn remade(&mut self, step: StepId, result: StepResult) {
        self.dequeue(step);
        self.steps[step.0].stage = Stage::Over;
        let children = self.graph.forked_by(step).to_vec();
        for child in &children {
            self.steps[child.0].unmet -= 1;
        }
        if matches!(self.course, Course::Stopping(_)) {
            // Those that wait end as what stops the run says.
            return;
        }
        if result.outcome.is_success() {
            if let Some(known) = &mut self.steps[step.0].result {
                known.detail = result.detail;
            }
            for child in children {
                self.wake(child, Turn::Ordered);
            }
            return;
        }
        let name = &self.step(step).name;
        let end = describe(&result.outcome);
        let message = format!("the snapshot of {name} is gone, and making it again failed: {end}");
        for child in children {
            self.parent_lost(child, &message);
        }
    }

    /// A snapshot that the step forks from is gone for good. One that replays a known result does not mind.
    fn parent_lost(&mut self, step: StepId, message: &str) {
        let progress = &self.steps[step.0];
        if !matches!(progress.stage, Stage::Waiting) {
            return;
        }
        if self.is_replay(step) && progress.result.is_none() {
            self.wake(step, Turn::Ordered);
            return;
        }
        let result = self.result(step, broken(message), Duration::ZERO, StepDetail::default());
        self.give_result(step, result);
    }
}

fn describe(outcome: &StepOutcome) -> String {
    match outcome {
        StepOutcome::Failed { exit_code } => format!("exit code {exit_code}"),
        StepOutcome::TimedOut { limit } => format!("not done in {} s", limit.as_secs_f64()),
        StepOutcome::Broken { message, .. } => message.clone(),
        StepOutcome::Cached
        | StepOutcome::Succeeded
        | StepOutcome::Cancelled
        | StepOutcome::Skipped(_) => outcome.name().to_owned(),
    }
}
