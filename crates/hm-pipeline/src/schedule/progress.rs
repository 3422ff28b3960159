//! The state of a run: which try may start next, and what follows from the end of one.

use std::sync::Arc;
use std::time::Duration;

use hm_vm_core::{CancelCause, Cancellation};
use tokio::time::Instant;

use super::capacity::Capacity;
use super::links::Graph;
use super::options::{RunOutcome, ScheduleOptions};
use super::turn::{Queue, Queues, Turn};
use crate::event::{
    RunEvent, RunEventSink, SkipReason, StepDetail, StepOutcome, StepResult, Verdict,
};
use crate::pipeline::{Step, StepId};
use crate::plan::{Decision, Plan};
use crate::runner::{StepEnd, StepReport, StepTry};

/// Where a step is. Drawn in the [module](super).
#[derive(Debug)]
pub(super) enum Stage {
    Waiting,
    Ready { queue: Queue, turn: Turn },
    Running(Try),
    Over,
}

/// A try that is going on.
#[derive(Debug)]
pub(super) struct Try {
    pub(super) cancel: Cancellation,
    pub(super) began: Instant,
    pub(super) queue: Queue,
    /// How often the steps that it forks from had been made again, all in all, when it began.
    pub(super) remakes: u32,
}

/// What is known of a step.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) stage: Stage,
    /// Steps that it needs without a result, and steps that it forks from that are not over.
    pub(super) unmet: usize,
    /// Tries that have begun.
    pub(super) tries: u32,
    /// Tries that failed since it began, or began to be made again.
    pub(super) failures: u32,
    /// How often it was made again.
    pub(super) remakes: u32,
    /// Its result, once its end was told. A step that has one and is not over is being made again.
    pub(super) result: Option<StepResult>,
}

impl Progress {
    /// Whether it has ended and is being made again.
    pub(super) fn is_remade(&self) -> bool {
        self.result.is_some() && !matches!(self.stage, Stage::Over)
    }
}

/// Where the run is heading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Nothing bad has happened.
    Well,
    /// Something failed, which decides the verdict; the rest goes on.
    Failing(Verdict),
    /// Nothing starts any more, and what runs is cancelled.
    Stopping(Verdict),
}

/// The state of a run.
pub(super) struct Run {
    pub(super) plan: Arc<Plan>,
    pub(super) graph: Graph,
    /// By step.
    pub(super) steps: Vec<Progress>,
    pub(super) queues: Queues,
    pub(super) course: Course,
    pub(super) keep_going: bool,
    timeout: Option<Duration>,
    capacity: Capacity,
    events: Arc<dyn RunEventSink>,
    began: Instant,
}

impl Run {
    /// A run that has begun: the steps that the plan skips are over.
    pub(super) fn begin(
        plan: Arc<Plan>,
        options: &ScheduleOptions,
        events: Arc<dyn RunEventSink>,
    ) -> Self {
        let graph = Graph::of(&plan);
        let steps = plan
            .pipeline
            .ids()
            .map(|step| Progress {
                stage: Stage::Waiting,
                unmet: graph.dependencies(step).count(),
                tries: 0,
                failures: 0,
                remakes: 0,
                result: None,
            })
            .collect();
        let mut run = Self {
            capacity: Capacity::new(&plan, options),
            plan,
            graph,
            steps,
            queues: Queues::default(),
            course: Course::Well,
            keep_going: options.keep_going,
            timeout: options.timeout,
            events,
            began: Instant::now(),
        };
        run.tell(&RunEvent::RunStarted {
            parallelism: options.parallelism.get(),
            steps: run.plan.order.len(),
        });
        let plan = Arc::clone(&run.plan);
        for &step in &plan.order {
            if let Decision::Skip(reason) = &plan.steps[step.0].decision {
                run.settle(step, untried(StepOutcome::Skipped(reason.clone())));
            }
        }
        for &step in &plan.order {
            let progress = &run.steps[step.0];
            if progress.unmet == 0 && matches!(progress.stage, Stage::Waiting) {
                run.enqueue(step, Turn::Ordered);
            }
        }
        run
    }

    /// A try that may start now, if there is one: the caller starts it, and reports its end to
    /// [`ended`](Self::ended).
    pub(super) fn next(&mut self) -> Option<(StepTry, Cancellation)> {
        if matches!(self.course, Course::Stopping(_)) {
            return None;
        }
        let step = self.take_next()?;
        let Stage::Ready { queue, turn } = self.steps[step.0].stage else {
            return None;
        };
        self.queues.remove(queue, turn);
        let cancel = Cancellation::new();
        let remakes = self.remakes_of_forks(step);
        let progress = &mut self.steps[step.0];
        progress.tries += 1;
        progress.stage = Stage::Running(Try {
            cancel: cancel.clone(),
            began: Instant::now(),
            queue,
            remakes,
        });
        let attempt = StepTry {
            step,
            attempt: progress.tries,
            rebuild: progress.result.is_some(),
        };
        if !attempt.rebuild {
            self.tell(&RunEvent::StepStarted {
                step,
                attempt: attempt.attempt,
            });
        }
        Some((attempt, cancel))
    }

    fn take_next(&mut self) -> Option<StepId> {
        let order = &self.plan.order;
        if let Some(step) = self.queues.steps(Queue::Replay, order).next()
            && self.capacity.take_replay()
        {
            return Some(step);
        }
        self.capacity
            .take_first(self.queues.steps(Queue::Run, order))
    }

    /// Takes the end of a try that [`next`](Self::next) gave.
    pub(super) fn ended(&mut self, step: StepId, report: StepReport) {
        let stage = std::mem::replace(&mut self.steps[step.0].stage, Stage::Waiting);
        let Stage::Running(ended) = stage else {
            self.steps[step.0].stage = stage;
            return;
        };
        match ended.queue {
            Queue::Run => self.capacity.release(step),
            Queue::Replay => self.capacity.release_replay(),
        }
        let outcome = match report.end {
            StepEnd::Outcome(outcome) => self.checked(&ended, outcome),
            StepEnd::ParentMissing if !matches!(self.course, Course::Stopping(_)) => {
                self.parent_missing(step, &ended);
                return;
            }
            StepEnd::ParentMissing => StepOutcome::Cancelled,
        };
        let result = self.result(step, outcome, ended.began.elapsed(), report.detail);
        if self.is_tried_again(step, &result.outcome) {
            self.try_again(step, result);
        } else {
            self.give_result(step, result);
        }
    }

    /// What a runner may not say is put right: a step cannot be skipped or cancelled by it, and the time that
    /// it was out of may be the run's.
    fn checked(&self, ended: &Try, outcome: StepOutcome) -> StepOutcome {
        let cause = ended.cancel.cause();
        match (outcome, cause) {
            (StepOutcome::TimedOut { limit }, Some(CancelCause::Timeout(_)))
                if Some(limit) == self.timeout =>
            {
                StepOutcome::Cancelled
            }
            (StepOutcome::Cancelled, None) => broken("it was given up though nobody cancelled it"),
            (StepOutcome::Skipped(_), _) => broken("it was skipped instead of run"),
            (outcome, _) => outcome,
        }
    }

    /// A result of this step.
    pub(super) fn result(
        &self,
        step: StepId,
        outcome: StepOutcome,
        took: Duration,
        detail: StepDetail,
    ) -> StepResult {
        let failed = matches!(
            outcome,
            StepOutcome::Failed { .. } | StepOutcome::TimedOut { .. } | StepOutcome::Broken { .. }
        );
        StepResult {
            outcome,
            allowed: failed && self.step(step).allow_failure,
            took,
            attempt: self.steps[step.0].tries,
            detail,
        }
    }

    fn is_tried_again(&self, step: StepId, outcome: &StepOutcome) -> bool {
        matches!(
            outcome,
            StepOutcome::Failed { .. } | StepOutcome::TimedOut { .. }
        ) && !matches!(self.course, Course::Stopping(_))
            && self.steps[step.0].failures < self.step(step).retries
    }

    fn try_again(&mut self, step: StepId, result: StepResult) {
        let progress = &mut self.steps[step.0];
        progress.failures += 1;
        if progress.result.is_none() {
            self.tell(&RunEvent::StepRetried {
                step,
                attempt: result.attempt,
                result: Box::new(result),
            });
        }
        self.enqueue_if_met(step, Turn::Ordered);
    }

    /// Takes the end of the last try of a step.
    pub(super) fn give_result(&mut self, step: StepId, result: StepResult) {
        if self.steps[step.0].result.is_some() {
            self.remade(step, result);
        } else {
            self.settle(step, result);
        }
    }

    /// Makes a step ready if all that it waits for is over.
    pub(super) fn enqueue_if_met(&mut self, step: StepId, turn: fn(usize) -> Turn) {
        if self.steps[step.0].unmet == 0 {
            self.enqueue(step, turn);
        }
    }

    fn enqueue(&mut self, step: StepId, turn: fn(usize) -> Turn) {
        let queue = if self.is_replay(step) {
            Queue::Replay
        } else {
            Queue::Run
        };
        let turn = turn(self.graph.position(step));
        self.queues.insert(queue, turn);
        self.steps[step.0].stage = Stage::Ready { queue, turn };
    }

    /// Takes a step that is ready out of its queue.
    pub(super) fn dequeue(&mut self, step: StepId) {
        if let Stage::Ready { queue, turn } = self.steps[step.0].stage {
            self.queues.remove(queue, turn);
            self.steps[step.0].stage = Stage::Waiting;
        }
    }

    /// Whether the next try only replays a known result.
    pub(super) fn is_replay(&self, step: StepId) -> bool {
        self.steps[step.0].tries == 0
            && matches!(self.plan.steps[step.0].decision, Decision::Hit(_))
    }

    /// What the run came to. Steps that nothing can start any more are broken: that happens only if the plan has
    /// a cycle.
    pub(super) fn finish(mut self) -> RunOutcome {
        let plan = Arc::clone(&self.plan);
        for &step in &plan.order {
            if self.steps[step.0].result.is_none() {
                let outcome = broken("what it waits for does not end: the plan has a cycle");
                let result = self.result(step, outcome, Duration::ZERO, StepDetail::default());
                self.settle(step, result);
            }
        }
        let verdict = self.verdict();
        let took = self.began.elapsed();
        self.tell(&RunEvent::RunEnded { verdict, took });
        RunOutcome {
            verdict,
            results: self.steps.into_iter().map(|it| it.result).collect(),
            took,
        }
    }

    fn verdict(&self) -> Verdict {
        let late = matches!(
            self.course,
            Course::Stopping(Verdict::Cancelled | Verdict::TimedOut { step: None })
        );
        match self.course {
            Course::Well => Verdict::Succeeded,
            Course::Stopping(_) if late && self.all_ended_well() => Verdict::Succeeded,
            Course::Failing(verdict) | Course::Stopping(verdict) => verdict,
        }
    }

    fn all_ended_well(&self) -> bool {
        let results = self.steps.iter().filter_map(|it| it.result.as_ref());
        results.into_iter().all(|result| match &result.outcome {
            StepOutcome::Skipped(reason) => *reason != SkipReason::RunFailed,
            outcome => outcome.is_success() || result.allowed,
        })
    }

    pub(super) fn step(&self, id: StepId) -> &Step {
        self.plan.pipeline.step(id)
    }

    pub(super) fn tell(&self, event: &RunEvent) {
        self.events.on_event(event);
    }
}

/// A result of a step that was never tried.
pub(super) fn untried(outcome: StepOutcome) -> StepResult {
    StepResult {
        outcome,
        allowed: false,
        took: Duration::ZERO,
        attempt: 0,
        detail: StepDetail::default(),
    }
}

/// An outcome without a hint.
pub(super) fn broken(message: impl Into<String>) -> StepOutcome {
    StepOutcome::Broken {
        message: message.into(),
        hint: None,
    }
}
