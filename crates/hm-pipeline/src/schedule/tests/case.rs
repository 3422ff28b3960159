//! Plans with a script for each step.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hm_vm_core::{CancelCause, Cancellation, SnapshotId};

use super::super::{ScheduleOptions, run};
use super::fake::World;
use super::seen::Seen;
use crate::event::{RunEvent, RunEventSink, SkipReason, StepOutcome, Verdict};
use crate::pipeline::{CacheDirectory, CacheSharing, Step, StepId};
use crate::plan::{CachedEntry, Decision, Plan};
use crate::runner::{StepEnd, StepRunner};
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
        snapshot: SnapshotId::new("known"),
        parent: None,
        created: std::time::UNIX_EPOCH,
        cost: None,
        elsewhere: false,
    })
}

pub(super) const LIMIT: Duration = Duration::from_secs(7);

/// A plan of steps with their scripts, which run one after the other in their order as far as they can.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) plan: Plan,
    pub(super) scripts: Vec<Script>,
}

/// Only what matters for the order of steps, one line for each.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for id in &self.plan.order {
            let step = self.plan.pipeline.step(*id);
            let caches: Vec<&str> = step.caches.iter().map(|it| it.name.as_str()).collect();
            let forks: Vec<StepId> = step.sources().collect();
            writeln!(
                f,
                "{id}: forks {forks:?} needs {:?} retries {} allow {} {:?} {:?} {caches:?} {:?} {:?}",
                step.needs,
                step.retries,
                step.allow_failure,
                step.limits.cpus,
                step.limits.memory_mib,
                self.plan.steps[id.0].decision,
                self.scripts[id.0],
            )?;
        }
        Ok(())
    }
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

pub(super) fn options(parallelism: usize) -> ScheduleOptions {
    ScheduleOptions {
        parallelism: parallelism.try_into().unwrap(),
        ..ScheduleOptions::default()
    }
}

pub(super) fn keep_going(parallelism: usize) -> ScheduleOptions {
    ScheduleOptions {
        keep_going: true,
        ..options(parallelism)
    }
}

pub(super) fn skipped_by(step: usize) -> StepOutcome {
    StepOutcome::Skipped(SkipReason::Dependency(StepId(step)))
}

pub(super) fn allowed(mut step: Step) -> Step {
    step.allow_failure = true;
    step
}

pub(super) fn retried(mut step: Step, retries: u32) -> Step {
    step.retries = retries;
    step
}

pub(super) fn failed(step: usize, exit_code: i32) -> Verdict {
    Verdict::Failed {
        step: StepId(step),
        exit_code,
    }
}

/// Cancels at a moment, and kills at a later one.
pub(super) fn interrupt_at(cancel: &Cancellation, at_ms: u64, kill_ms: Option<u64>) {
    let cancel = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(ms(at_ms)).await;
        cancel.cancel(CancelCause::User);
        if let Some(kill_ms) = kill_ms {
            tokio::time::sleep(ms(kill_ms)).await;
            cancel.kill(CancelCause::User);
        }
    });
}
