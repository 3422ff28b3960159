//! The end of a step, and what follows for those that depend on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hm_vm_core::CancelCause;

use super::links::Dependency;
use super::progress::{Course, Run, Stage, untried};
use super::turn::Turn;
use crate::event::{RunEvent, SkipReason, StepDetail, StepOutcome, StepResult, Verdict};
use crate::pipeline::StepId;
use crate::plan::Decision;

/// The exit code of a run in which a step was broken.
const BROKEN_EXIT_CODE: i32 = 125;

impl Run {
    /// Ends a step that has no result yet, and all that cannot run because of that.
    pub(super) fn settle(&mut self, step: StepId, result: StepResult) {
        let mut due = VecDeque::from([(step, result)]);
        let mut failed = None;
        while let Some((step, result)) = due.pop_front() {
            if self.steps[step.0].result.is_some() {
                continue;
            }
            if let Some(verdict) = failure(step, &result) {
                failed = failed.or(Some(step));
                if self.course == Course::Well {
                    self.course = Course::Failing(verdict);
                }
            }
            self.record(step, result, &mut due);
        }
        if let (Some(step), Course::Failing(verdict)) = (failed, self.course)
            && !self.keep_going
        {
            let name = self.step(step).name.clone();
            self.stop(&CancelCause::Sibling(name), verdict);
        }
    }

    /// Keeps and tells a step's result, and looks at those that waited for it.
    fn record(
        &mut self,
        step: StepId,
        result: StepResult,
        due: &mut VecDeque<(StepId, StepResult)>,
    ) {
        self.dequeue(step);
        let boxed = Box::new(result.clone());
        let ran = result.outcome == StepOutcome::Succeeded;
        let heir = self.graph.only_child(step).filter(|_| ran);
        let progress = &mut self.steps[step.0];
        progress.stage = Stage::Over;
        progress.result = Some(result);
        self.tell(&RunEvent::StepEnded {
            step,
            result: boxed,
        });
        let dependants: Vec<_> = self.graph.dependants(step).collect();
        for (dependant, dependency) in dependants {
            self.steps[dependant.0].unmet -= 1;
            if let Some(reason) = self.obstacle(step, dependency) {
                self.hinder(dependant, reason, due);
            } else {
                let turn = if heir == Some(dependant) {
                    Turn::Next
                } else {
                    Turn::Ordered
                };
                self.wake(dependant, turn);
            }
        }
    }

    /// Makes a step ready that waits and has all that it waited for.
    pub(super) fn wake(&mut self, step: StepId, turn: fn(usize) -> Turn) {
        if matches!(self.steps[step.0].stage, Stage::Waiting) {
            self.enqueue_if_met(step, turn);
        }
    }

    /// A step cannot run, as another one did not end well.
    fn hinder(
        &mut self,
        step: StepId,
        reason: SkipReason,
        due: &mut VecDeque<(StepId, StepResult)>,
    ) {
        let progress = &self.steps[step.0];
        if progress.is_remade() {
            self.remake_hindered(step, &reason);
        } else if progress.result.is_none()
            && !self.is_left_out(step)
            && !matches!(self.course, Course::Stopping(_))
        {
            due.push_back((step, untried(StepOutcome::Skipped(reason))));
        }
    }

    /// Why a step that depends on this one, which is over, cannot run.
    pub(super) fn obstacle(&self, step: StepId, dependency: Dependency) -> Option<SkipReason> {
        let result = self.steps[step.0].result.as_ref()?;
        if result.outcome.is_success() {
            return None;
        }
        let root = match result.outcome {
            StepOutcome::Skipped(SkipReason::RunFailed) => return Some(SkipReason::RunFailed),
            StepOutcome::Skipped(SkipReason::Dependency(root)) => root,
            _ => step,
        };
        // What the plan leaves out for a condition has not failed.
        let minds = dependency == Dependency::Forks || !(result.allowed || self.is_left_out(root));
        minds.then_some(SkipReason::Dependency(root))
    }

    /// Whether the plan skips the step.
    fn is_left_out(&self, step: StepId) -> bool {
        matches!(self.plan.steps[step.0].decision, Decision::Skip(_))
    }

    /// Lets nothing start any more, and cancels what runs. The first call decides the verdict, unless a
    /// failure has; a later one only reaches tries that nothing has cancelled yet.
    pub(super) fn stop(&mut self, cause: &CancelCause, verdict: Verdict) {
        self.course = match self.course {
            Course::Well => Course::Stopping(verdict),
            Course::Failing(first) | Course::Stopping(first) => Course::Stopping(first),
        };
        for progress in &self.steps {
            if let Stage::Running(running) = &progress.stage {
                running.cancel.cancel(cause.clone());
            }
        }
        let plan = Arc::clone(&self.plan);
        for &step in &plan.order {
            let progress = &self.steps[step.0];
            if matches!(progress.stage, Stage::Running(_) | Stage::Over) {
                continue;
            }
            if progress.result.is_some() {
                self.dequeue(step);
                self.steps[step.0].stage = Stage::Over;
                continue;
            }
            let begun = progress.tries > 0;
            let outcome = if begun || !matches!(cause, CancelCause::Sibling(_)) {
                StepOutcome::Cancelled
            } else {
                StepOutcome::Skipped(SkipReason::RunFailed)
            };
            let result = self.result(step, outcome, Duration::ZERO, StepDetail::default());
            self.settle(step, result);
        }
    }

    /// Ends what runs without a grace period.
    pub(super) fn kill(&self, cause: &CancelCause) {
        for progress in &self.steps {
            if let Stage::Running(running) = &progress.stage {
                running.cancel.kill(cause.clone());
            }
        }
    }
}

/// The verdict of a run in which this was the first failure, if it is one.
fn failure(step: StepId, result: &StepResult) -> Option<Verdict> {
    if result.allowed {
        return None;
    }
    match result.outcome {
        StepOutcome::Failed { exit_code } => Some(Verdict::Failed { step, exit_code }),
        StepOutcome::Broken { .. } => Some(Verdict::Failed {
            step,
            exit_code: BROKEN_EXIT_CODE,
        }),
        StepOutcome::TimedOut { .. } => Some(Verdict::TimedOut { step: Some(step) }),
        StepOutcome::Cached
        | StepOutcome::Succeeded
        | StepOutcome::Cancelled
        | StepOutcome::Skipped(_) => None,
    }
}
