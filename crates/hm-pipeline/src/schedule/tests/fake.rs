//! Steps that only compute, and a world that notices when the scheduler breaks its word.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use hm_vm_core::{CancelCause, Cancellation};
use tokio::time::Instant;

use super::super::{RunOutcome, ScheduleOptions, run};
use crate::event::{RunEvent, RunEventSink, StepDetail, StepOutcome, Verdict};
use crate::pipeline::{CacheDirectory, CacheSharing, Step, StepBase, StepId};
use crate::plan::{CachedEntry, Decision, Plan};
use crate::runner::{StepEnd, StepReport, StepRunner, StepTry};
use crate::testing;

/// How a try ends when nobody cancels it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Succeed,
    Fail(i32),
    TimeOut,
    Break,
    Panic,
    /// It returns this, whatever it means.
    Return(StepEnd),
}

/// What a step does.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// How long each try takes.
    pub(super) time: Duration,
    /// How the tries end that are no rebuilds; the last one repeats.
    pub(super) acts: Vec<Act>,
    /// How rebuilds end; the last one repeats.
    pub(super) rebuilds: Vec<Act>,
    /// How long it takes to end once cancelled, if it is not killed.
    pub(super) grace: Duration,
    /// It does not notice that it is cancelled.
    pub(super) deaf: bool,
    /// The snapshot that the plan counts on is not there.
    pub(super) gone: bool,
    /// The known result is not there: a first try runs for real.
    pub(super) lost: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            time: ms(10),
            acts: vec![Act::Succeed],
            rebuilds: vec![Act::Succeed],
            grace: ms(4),
            deaf: false,
            gone: false,
            lost: false,
        }
    }
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A step that ends like this.
pub(super) fn acts(acts: &[Act]) -> Script {
    Script {
        acts: acts.to_vec(),
        ..Script::default()
    }
}

/// A step that takes this long.
pub(super) fn takes(time_ms: u64) -> Script {
    Script {
        time: ms(time_ms),
        ..Script::default()
    }
}

pub(super) fn locked(name: &str) -> CacheDirectory {
    CacheDirectory {
        name: name.into(),
        target: "/cache".into(),
        sharing: CacheSharing::Locked,
    }
}

pub(super) fn hit() -> Decision {
    Decision::Hit(CachedEntry {
        snapshot: hm_vm_core::SnapshotId::new("known"),
        parent: None,
        created: std::time::UNIX_EPOCH,
        cost: None,
    })
}

pub(super) const LIMIT: Duration = Duration::from_secs(7);

/// A plan of steps with their scripts, which run one after the other in their order as far as they can.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) plan: Plan,
    pub(super) scripts: Vec<Script>,
}

impl Case {
    pub(super) fn new(steps: Vec<(Step, Script)>) -> Self {
        let (steps, scripts) = steps.into_iter().unzip();
        Self {
            plan: testing::plan(testing::pipeline(steps)),
            scripts,
        }
    }

    pub(super) fn decided(mut self, step: usize, decision: Decision) -> Self {
        self.plan.steps[step].decision = decision;
        self
    }

    /// Runs it, and checks everything that holds for every run.
    pub(super) async fn run(self, options: ScheduleOptions) -> Seen {
        self.run_with(options, |_| {}).await
    }

    /// Runs it, with something to be done at every event.
    pub(super) async fn run_with(
        self,
        options: ScheduleOptions,
        on_event: impl Fn(&RunEvent) + Send + Sync + 'static,
    ) -> Seen {
        let world = Arc::new(World::new(self, options.clone(), Box::new(on_event)));
        let outcome = run(
            Arc::new(world.case.plan.clone()),
            Arc::clone(&world) as Arc<dyn StepRunner>,
            options,
            Arc::clone(&world) as Arc<dyn RunEventSink>,
        )
        .await;
        Seen::check(&world, outcome)
    }
}

/// A try as the runner saw it.
#[derive(Clone, Debug)]
pub(super) struct SeenTry {
    pub(super) attempt: StepTry,
    pub(super) cause: Option<CancelCause>,
    pub(super) killed: bool,
}

#[derive(Default)]
pub(super) struct State {
    running: Vec<(StepId, bool)>,
    tries: Vec<SeenTry>,
    events: Vec<(Duration, RunEvent)>,
    ended: BTreeSet<StepId>,
    snapshots: BTreeSet<StepId>,
    values: Vec<Option<u64>>,
    complaints: Vec<String>,
}

pub(super) struct World {
    case: Case,
    options: ScheduleOptions,
    began: Instant,
    state: Mutex<State>,
    on_event: Box<dyn Fn(&RunEvent) + Send + Sync>,
}

/// What a run did.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) outcome: RunOutcome,
    pub(super) events: Vec<(Duration, RunEvent)>,
    pub(super) tries: Vec<SeenTry>,
    pub(super) values: Vec<Option<u64>>,
}

impl World {
    fn new(
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

    fn state(&self) -> MutexGuard<'_, State> {
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
        for other in dependencies(step) {
            if !state.ended.contains(&other) {
                state
                    .complaints
                    .push(format!("{} starts before {other} is over", step.name));
            }
            if let StepBase::Step(parent) = step.base
                && parent == other
                && state.running.iter().any(|it| it.0 == other)
            {
                state
                    .complaints
                    .push(format!("{} starts beside its parent", step.name));
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
        let mut locks: Vec<_> = steps
            .iter()
            .flat_map(|it| &it.caches)
            .filter(|it| it.sharing == CacheSharing::Locked)
            .map(|it| &it.name)
            .collect();
        let held = locks.len();
        locks.sort();
        locks.dedup();
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
            (locks.len() != held, "a cache directory is used twice"),
        ] {
            if wrong {
                state.complaints.push(format!("{text}: {runs:?}"));
            }
        }
    }

    /// The result of a step, from those of what it depends on.
    fn value(&self, step: StepId) -> u64 {
        let state = self.state();
        let parents = dependencies(self.case.plan.pipeline.step(step));
        let sum: u64 = parents
            .iter()
            .map(|it| state.values[it.0].unwrap_or(1))
            .fold(0, |sum, value| sum.wrapping_mul(31).wrapping_add(value));
        sum.wrapping_add(step.0 as u64 + 1)
    }

    fn act(&self, attempt: StepTry) -> Act {
        let script = &self.case.scripts[attempt.step.0];
        let earlier = self.state().tries.clone();
        let count = earlier
            .iter()
            .filter(|it| it.attempt.step == attempt.step && it.attempt.rebuild == attempt.rebuild)
            .count();
        let acts = if attempt.rebuild {
            &script.rebuilds
        } else {
            &script.acts
        };
        acts[count.min(acts.len()) - 1].clone()
    }

    fn end(&self, attempt: StepTry, act: Act) -> StepEnd {
        let replayed = self.is_hit(attempt.step)
            && attempt.attempt == 1
            && !self.case.scripts[attempt.step.0].lost;
        let outcome = match act {
            Act::Succeed => {
                let value = self.value(attempt.step);
                let mut state = self.state();
                state.values[attempt.step.0] = Some(value);
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

    fn parent_is_gone(&self, attempt: StepTry) -> bool {
        let replays = self.is_hit(attempt.step)
            && attempt.attempt == 1
            && !self.case.scripts[attempt.step.0].lost;
        match self.case.plan.pipeline.step(attempt.step).base {
            StepBase::Step(parent) if !replays => !self.state().snapshots.contains(&parent),
            _ => false,
        }
    }
}

/// All that a step depends on.
pub(super) fn dependencies(step: &Step) -> Vec<StepId> {
    let bases = std::iter::once(&step.base).chain(step.services.iter().map(|it| &it.base));
    let forks = bases.filter_map(|base| match base {
        StepBase::Step(parent) => Some(*parent),
        StepBase::Image(_) => None,
    });
    forks.chain(step.needs.iter().copied()).collect()
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
        let act = self.act(attempt);
        let script = &self.case.scripts[attempt.step.0];
        let end = if self.parent_is_gone(attempt) {
            StepEnd::ParentMissing
        } else {
            tokio::select! {
                biased;
                cause = cancel.cancelled(), if !script.deaf => {
                    self.state().tries[index].cause = Some(cause);
                    tokio::select! {
                        () = cancel.killed() => self.state().tries[index].killed = true,
                        () = tokio::time::sleep(script.grace) => {}
                    }
                    StepEnd::Outcome(StepOutcome::Cancelled)
                }
                () = tokio::time::sleep(script.time) => self.end(attempt, act),
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

impl Seen {
    /// What holds for every run.
    fn check(world: &World, outcome: RunOutcome) -> Self {
        let state = std::mem::take(&mut *world.state());
        assert_eq!(state.complaints, Vec::<String>::new());
        assert_eq!(state.running, Vec::new(), "nothing is left alive");
        let order = &world.case.plan.order;
        let ended: BTreeSet<StepId> = order.iter().copied().collect();
        assert_eq!(state.ended, ended, "each step ends");
        let seen = Self {
            outcome,
            events: state.events,
            tries: state.tries,
            values: state.values,
        };
        seen.check_frame(order.len());
        for &step in order {
            seen.check_events_of(step);
        }
        seen
    }

    fn check_frame(&self, count: usize) {
        assert!(matches!(
            self.events.first(),
            Some((_, RunEvent::RunStarted { steps, .. })) if *steps == count
        ));
        assert!(matches!(
            self.events.last(),
            Some((_, RunEvent::RunEnded { verdict, .. })) if *verdict == self.outcome.verdict
        ));
        let ends = self
            .events
            .iter()
            .filter(|(_, it)| matches!(it, RunEvent::RunEnded { .. }));
        assert_eq!(ends.count(), 1);
    }

    /// A step's events are those of its tries, and a retry stands between two of them.
    fn check_events_of(&self, id: StepId) {
        let mut started = Vec::new();
        let mut last_retried = 0;
        let mut over = false;
        for (_, event) in &self.events {
            match event {
                RunEvent::StepStarted { step, attempt } if *step == id => {
                    assert!(!over, "{id} starts after its end");
                    started.push(*attempt);
                }
                RunEvent::StepRetried { step, attempt, .. } if *step == id => {
                    assert_eq!(started.last(), Some(attempt), "{id} is retried once a try");
                    assert!(last_retried < *attempt);
                    last_retried = *attempt;
                }
                RunEvent::StepEnded { step, .. } if *step == id => over = true,
                _ => {}
            }
        }
        let tries = self.tries_of(id);
        let told: Vec<u32> = tries
            .iter()
            .filter(|it| !it.attempt.rebuild)
            .map(|it| it.attempt.attempt)
            .collect();
        assert_eq!(started, told, "each try of {id} is told");
        let numbers: Vec<u32> = tries.iter().map(|it| it.attempt.attempt).collect();
        assert_eq!(
            numbers,
            (1..=tries.len() as u32).collect::<Vec<_>>(),
            "tries of {id} are numbered"
        );
        let result = self.outcome.results[id.0].as_ref().unwrap();
        assert_eq!(result.attempt as usize, told.len());
    }

    pub(super) fn tries_of(&self, step: StepId) -> Vec<&SeenTry> {
        let tries = self.tries.iter();
        tries.filter(|it| it.attempt.step == step).collect()
    }

    pub(super) fn end(&self, step: usize) -> &StepOutcome {
        &self.outcome.results[step].as_ref().unwrap().outcome
    }

    pub(super) fn ends(&self) -> Vec<&StepOutcome> {
        (0..self.outcome.results.len())
            .map(|step| self.end(step))
            .collect()
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.outcome.verdict
    }

    /// The steps in the order of their first tries.
    pub(super) fn started(&self) -> Vec<usize> {
        let tries = self.tries.iter();
        let first = tries.filter(|it| it.attempt.attempt == 1);
        first.map(|it| it.attempt.step.0).collect()
    }

    /// When a step's end was told.
    pub(super) fn ended_at(&self, id: usize) -> Duration {
        let mut ends = self.events.iter().filter_map(|(at, event)| match event {
            RunEvent::StepEnded { step, .. } if step.0 == id => Some(*at),
            _ => None,
        });
        ends.next().unwrap()
    }

    pub(super) fn notices(&self) -> Vec<&str> {
        let events = self.events.iter();
        let notices = events.filter_map(|(_, event)| match event {
            RunEvent::Notice { text, .. } => Some(text.as_str()),
            _ => None,
        });
        notices.collect()
    }
}
