//! Steps that only compute, and a world that notices when the scheduler breaks its word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use hm_vm_core::{CancelCause, Cancellation};
use tokio::time::Instant;

use super::super::ScheduleOptions;
use super::case::{Act, Case, LIMIT};
use super::seen::SeenTry;
use crate::event::{RunEvent, RunEventSink, StepDetail, StepOutcome};
use crate::pipeline::{CacheSharing, Step, StepId};
use crate::plan::Decision;
use crate::runner::{StepEnd, StepReport, StepRunner, StepTry};

#[derive(Default)]
pub(super) struct State {
    pub(super) running: Vec<(StepId, bool)>,
    pub(super) tries: Vec<SeenTry>,
    pub(super) events: Vec<(Duration, RunEvent)>,
    pub(super) ended: BTreeSet<StepId>,
    pub(super) snapshots: BTreeSet<StepId>,
    pub(super) values: Vec<Option<u64>>,
    pub(super) complaints: Vec<String>,
    /// How many acts of a step, and of its rebuilds, are done.
    acts: BTreeMap<(StepId, bool), usize>,
}

pub(super) struct World {
    pub(super) case: Case,
    options: ScheduleOptions,
    began: Instant,
    state: Mutex<State>,
    on_event: Box<dyn Fn(&RunEvent) + Send + Sync>,
}

impl World {
    pub(super) fn new(
        case: Case,
        options: ScheduleOptions,
        on_event: Box<dyn Fn(&RunEvent) + Send + Sync>,
    ) -> Self {
        let known = case.plan.pipeline.ids().filter(|step| {
            matches!(case.plan.steps[step.0].decision, Decision::Hit(_))
                && !case.scripts[step.0].gone
        });
        let state = State {
            snapshots: known.collect(),
            values: vec![None; case.scripts.len()],
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            began: Instant::now(),
            case,
            options,
            on_event,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn is_hit(&self, step: StepId) -> bool {
        matches!(self.case.plan.steps[step.0].decision, Decision::Hit(_))
    }

    fn begin(&self, attempt: StepTry) -> Running<'_> {
        let replays = self.is_hit(attempt.step) && attempt.attempt == 1;
        let mut state = self.state();
        state.running.push((attempt.step, replays));
        let step = self.case.plan.pipeline.step(attempt.step);
        if state
            .running
            .iter()
            .filter(|it| it.0 == attempt.step)
            .count()
            > 1
        {
            state
                .complaints
                .push(format!("{} runs twice at once", step.name));
        }
        for other in step.waits_for() {
            if !state.ended.contains(&other) {
                state
                    .complaints
                    .push(format!("{} starts before {other} is over", step.name));
            }
        }
        for parent in step.sources() {
            if state.running.iter().any(|it| it.0 == parent) {
                state.complaints.push(format!(
                    "{} starts beside {parent}, which it forks",
                    step.name
                ));
            }
        }
        self.check_capacity(&mut state);
        drop(state);
        Running {
            world: self,
            step: attempt.step,
        }
    }

    fn check_capacity(&self, state: &mut State) {
        let places = self.options.parallelism.get();
        let (replays, runs): (Vec<_>, Vec<_>) = state
            .running
            .iter()
            .copied()
            .partition(|it: &(StepId, bool)| it.1);
        let steps: Vec<&Step> = runs
            .iter()
            .map(|it| self.case.plan.pipeline.step(it.0))
            .collect();
        let cpus: u64 = steps.iter().map(|it| cpus(it)).sum();
        let memory: u64 = steps.iter().filter_map(|it| it.limits.memory_mib).sum();
        let locks: Vec<_> = steps.iter().flat_map(|it| names_of_locks(it)).collect();
        let held: BTreeSet<_> = locks.iter().collect();
        let overlap = locks.len() != held.len();
        let alone = steps.len() == 1;
        for (wrong, text) in [
            (runs.len() > places, "too many run"),
            (replays.len() > 4 * places, "too many replay"),
            (
                cpus > u64::from(self.options.cpus) && !alone,
                "too many cpus",
            ),
            (
                memory > self.options.memory_mib && !alone,
                "too much memory",
            ),
            (overlap, "a cache directory is used twice"),
        ] {
            if wrong {
                state.complaints.push(format!("{text}: {runs:?}"));
            }
        }
    }

    /// The result of a step, from those of what it depends on.
    fn value(&self, step: StepId) -> u64 {
        let state = self.state();
        let step_of = self.case.plan.pipeline.step(step);
        let sum: u64 = step_of
            .waits_for()
            .map(|it| state.values[it.0].unwrap_or(1))
            .fold(0, |sum, value| sum.wrapping_mul(31).wrapping_add(value));
        sum.wrapping_add(step.0 as u64 + 1)
    }

    fn act(&self, attempt: StepTry) -> Act {
        let script = &self.case.scripts[attempt.step.0];
        let mut state = self.state();
        let done = state
            .acts
            .entry((attempt.step, attempt.rebuild))
            .or_default();
        let acts = if attempt.rebuild {
            &script.rebuilds
        } else {
            &script.acts
        };
        let act = acts[(*done).min(acts.len() - 1)].clone();
        *done += 1;
        act
    }

    /// Whether a try finds its result.
    fn replays(&self, attempt: StepTry) -> bool {
        let lost = self.case.scripts[attempt.step.0].lost;
        self.is_hit(attempt.step) && attempt.attempt == 1 && !lost
    }

    fn end(&self, attempt: StepTry) -> StepEnd {
        let replayed = self.replays(attempt);
        let outcome = match self.act(attempt) {
            Act::Succeed => {
                let value = self.value(attempt.step);
                let mut state = self.state();
                // A rebuild makes what was there.
                if !attempt.rebuild {
                    state.values[attempt.step.0] = Some(value);
                }
                if replayed {
                    StepOutcome::Cached
                } else {
                    state.snapshots.insert(attempt.step);
                    StepOutcome::Succeeded
                }
            }
            Act::Fail(exit_code) => StepOutcome::Failed { exit_code },
            Act::TimeOut => StepOutcome::TimedOut { limit: LIMIT },
            Act::Break => StepOutcome::Broken {
                message: "broken".into(),
                hint: Some("mend it".into()),
            },
            Act::Panic => panic!("a fake panic"),
            Act::Return(end) => return end,
        };
        StepEnd::Outcome(outcome)
    }

    fn a_parent_is_gone(&self, attempt: StepTry) -> bool {
        let snapshots = &self.state().snapshots;
        !self.replays(attempt)
            && self
                .case
                .plan
                .pipeline
                .step(attempt.step)
                .sources()
                .any(|parent| !snapshots.contains(&parent))
    }
}

fn names_of_locks(step: &Step) -> BTreeSet<&str> {
    let caches = step.caches.iter();
    let locked = caches.filter(|it| it.sharing == CacheSharing::Locked);
    locked.map(|it| it.name.as_str()).collect()
}

fn cpus(step: &Step) -> u64 {
    let services = step.services.iter().filter_map(|it| it.limits.cpus);
    services.chain(step.limits.cpus).map(u64::from).sum()
}

/// Takes a try off the list, also when it panics or is dropped.
struct Running<'a> {
    world: &'a World,
    step: StepId,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.world.state().running.retain(|it| it.0 != self.step);
    }
}

#[async_trait]
impl StepRunner for World {
    async fn run(&self, attempt: StepTry, cancel: Cancellation) -> StepReport {
        let _running = self.begin(attempt);
        let seen = SeenTry {
            attempt,
            cause: None,
            killed: false,
        };
        let index = {
            let mut state = self.state();
            state.tries.push(seen);
            state.tries.len() - 1
        };
        let script = &self.case.scripts[attempt.step.0];
        let end = if self.a_parent_is_gone(attempt) {
            StepEnd::ParentMissing
        } else {
            tokio::select! {
                biased;
                cause = cancel.cancelled(), if !script.deaf => {
                    self.state().tries[index].cause = Some(cause.clone());
                    tokio::select! {
                        () = cancel.killed() => self.state().tries[index].killed = true,
                        () = tokio::time::sleep(script.grace) => {}
                    }
                    // As the engine says it: it has one error for both.
                    StepEnd::Outcome(match cause {
                        CancelCause::Timeout(limit) => StepOutcome::TimedOut { limit },
                        _ => StepOutcome::Cancelled,
                    })
                }
                () = tokio::time::sleep(script.time) => self.end(attempt),
            }
        };
        StepReport {
            end,
            detail: StepDetail::default(),
        }
    }
}

impl RunEventSink for World {
    fn on_event(&self, event: &RunEvent) {
        {
            let mut state = self.state();
            state.events.push((self.began.elapsed(), event.clone()));
            if let RunEvent::StepEnded { step, .. } = event
                && !state.ended.insert(*step)
            {
                state.complaints.push(format!("{step} ends twice"));
            }
        }
        (self.on_event)(event);
    }
}
