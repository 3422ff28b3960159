//! One step, on the engine.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use hm_pipeline::event::StepDetail;
use hm_pipeline::pipeline::StepBase;
use hm_pipeline::plan::{Decision, Forks};
use hm_pipeline::record::RunWriter;
use hm_pipeline::{
    Plan, RunEvent, RunEventSink, Step, StepEnd, StepId, StepOutcome, StepReport, StepRunner,
    StepTry,
};
use hm_vm::{
    Cancellation, Error, ExecutionResult, HmVm, ImageSource, NetworkPolicy, SnapshotId, VmHandover,
    VmSlot,
};

use super::keys::{Keys, StepKey};
use super::preparation::Place;
use super::sink::StepSink;
use super::{action, outputs};
use crate::backend::Keeper;
use crate::failure::{Report, contract};

/// How often a step is begun anew because its files changed while it was being begun.
const RENEWALS: usize = 3;

/// What a program says that looked for a network.
const NETWORK_WANTED: [&str; 6] = [
    "Could not resolve",
    "could not resolve",
    "Temporary failure in name resolution",
    "Temporary failure resolving",
    "Name or service not known",
    "Network is unreachable",
];

/// Carries the steps of one run out.
pub(super) struct EngineRunner {
    pub(super) plan: Arc<Plan>,
    pub(super) engine: Arc<HmVm>,
    pub(super) keeper: Keeper,
    pub(super) events: Arc<dyn RunEventSink>,
    pub(super) writer: Arc<RunWriter>,
    pub(super) grace: Duration,
    pub(super) forks: Forks,
    pub(super) keys: Keys,
    pub(super) state: Mutex<RunnerState>,
    pub(super) noticed: AtomicBool,
}

/// What earlier steps left for later ones.
#[derive(Default)]
pub(super) struct RunnerState {
    snapshots: HashMap<StepId, SnapshotId>,
    /// VMs on their way to the step that goes on in them.
    slots: HashMap<StepId, VmSlot>,
    ephemeral: Vec<SnapshotId>,
    /// What failed tries left to look at: each step keeps that of its last one.
    kept: HashMap<StepId, SnapshotId>,
}

/// What came of one execution.
struct Executed {
    result: ExecutionResult,
    key: StepKey,
}

#[async_trait]
impl StepRunner for EngineRunner {
    async fn run(&self, attempt: StepTry, cancel: Cancellation) -> StepReport {
        let sink = Arc::new(StepSink::new(attempt.step, Arc::clone(&self.events)));
        self.writer.note_started(attempt.step);
        let kept = self.state().kept.remove(&attempt.step);
        if let Some(kept) = kept {
            self.remove(&kept).await;
        }
        let mut detail = StepDetail {
            key: self.plan.steps[attempt.step.0].key.clone(),
            ..StepDetail::default()
        };
        let end = match self.source(attempt.step) {
            None => StepEnd::ParentMissing,
            Some(source) => {
                let executed = self.execute(attempt, source.clone(), &sink, &cancel).await;
                self.conclude(attempt, executed, &source, &sink, &cancel, &mut detail)
                    .await
            }
        };
        let log = self.writer.log_path(attempt.step);
        detail.log = log.exists().then_some(log);
        StepReport { end, detail }
    }
}

impl EngineRunner {
    fn state(&self) -> MutexGuard<'_, RunnerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, id: StepId) -> &Step {
        self.plan.pipeline.step(id)
    }

    /// What the step's VM starts from; `None` when the snapshot of its parent is not known to be anywhere.
    fn source(&self, id: StepId) -> Option<ImageSource> {
        let source = self.source_of(&self.step(id).base);
        match (&self.plan.steps[id.0].decision, source) {
            // A step that is skipped needs no parent. Should its result be gone, this one is asked for, and missed.
            (Decision::Hit(entry), None) => {
                let parent = entry.parent.clone();
                Some(ImageSource::Snapshot(
                    parent.unwrap_or_else(|| SnapshotId::new("gone")),
                ))
            }
            (_, source) => source,
        }
    }

    fn source_of(&self, base: &StepBase) -> Option<ImageSource> {
        match base {
            StepBase::Image(image) => Some(ImageSource::Image(image.clone())),
            StepBase::Step(parent) => self.snapshot(*parent).map(ImageSource::Snapshot),
        }
    }

    fn snapshot(&self, id: StepId) -> Option<SnapshotId> {
        if let Some(snapshot) = self.state().snapshots.get(&id) {
            return Some(snapshot.clone());
        }
        match &self.plan.steps[id.0].decision {
            Decision::Hit(entry) => Some(entry.snapshot.clone()),
            _ => None,
        }
    }

    /// Runs the step, or finds its result. Begins anew when its files change before its command does.
    async fn execute(
        &self,
        attempt: StepTry,
        source: ImageSource,
        sink: &Arc<StepSink>,
        cancel: &Cancellation,
    ) -> Result<Executed> {
        let mut renewals = 0;
        loop {
            let key = self.keys.of(&self.plan, attempt.step);
            match self
                .execute_once(attempt, &source, &key, sink, cancel)
                .await
            {
                Ok(result) => return Ok(Executed { result, key }),
                Err(error)
                    if renewals < RENEWALS
                        && matches!(contract(&error), Some(Error::InputChanged { .. })) =>
                {
                    renewals += 1;
                    let backend = self.engine.backend();
                    self.keys
                        .renew(&self.plan, attempt.step, backend.as_ref())
                        .await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn execute_once(
        &self,
        attempt: StepTry,
        source: &ImageSource,
        key: &StepKey,
        sink: &Arc<StepSink>,
        cancel: &Cancellation,
    ) -> Result<ExecutionResult> {
        let id = attempt.step;
        let step = self.step(id);
        let log = self.writer.log_path(id);
        // An earlier try has left its own.
        remove_file(&log)?;
        let mut options = action::options(step, &self.plan.steps[id.0], key);
        options.cancel = Some(cancel.clone());
        options.grace = self.grace;
        options.events = Some(sink.clone());
        options.log = Some(log);
        let place = Place {
            plan: &self.plan,
            engine: &self.engine,
            keeper: &self.keeper,
            events: &self.events,
        };
        options.preparation = place.preparation(id, |base| self.source_of(base))?;
        options.vm = self.hand_over(id);
        options.no_snapshot =
            key.key.is_none() && step.outputs.is_empty() && !self.is_forked_from(id);
        let action = action::action(step, source.clone())?;
        let policy = action::policy(key);
        let result = self
            .engine
            .execute_with(action, policy, sink.as_ref(), options)
            .await;
        self.tell_notices(result.as_ref().is_ok_and(|result| result.cached));
        result
    }

    /// What the backend has to tell of this machine, once, and not for a run without commands: to know it, it may
    /// have to look around.
    fn tell_notices(&self, cached: bool) {
        if cached || self.noticed.swap(true, Ordering::Relaxed) {
            return;
        }
        for text in self.engine.backend().notices() {
            self.events.on_event(&RunEvent::Notice { step: None, text });
        }
    }

    fn is_forked_from(&self, id: StepId) -> bool {
        let users = self.forks.users(id).iter();
        users.copied().any(|user| self.plan.steps[user.0].selected)
    }

    /// The VM of a chain goes on with its next step.
    fn hand_over(&self, id: StepId) -> VmHandover {
        let mut state = self.state();
        let take = state.slots.remove(&id);
        let leave = self.plan.only_child_in(&self.forks, id).map(|child| {
            let slot = VmSlot::default();
            state.slots.insert(child, slot.clone());
            slot
        });
        VmHandover { take, leave }
    }

    /// Turns what the engine says into how the step ended.
    async fn conclude(
        &self,
        attempt: StepTry,
        executed: Result<Executed>,
        source: &ImageSource,
        sink: &StepSink,
        cancel: &Cancellation,
        detail: &mut StepDetail,
    ) -> StepEnd {
        let executed = match executed {
            Ok(executed) => executed,
            Err(error) => return ended_with(&error, source, cancel),
        };
        let Executed { result, key } = executed;
        detail.key = key.key;
        detail.phases = result.phases;
        detail.usage = result.usage;
        detail.saved = result.saved;
        detail.fetched_bytes = result.remote.map(|remote| remote.bytes);
        if let Some(kept) = &result.kept {
            // Until it is on record with the run, it goes with it.
            self.note_ephemeral(kept);
            self.state().kept.insert(attempt.step, kept.clone());
        }
        detail.kept = result.kept;
        if result.exit_code != 0 {
            self.hint_at_network(attempt.step, sink);
            return StepEnd::Outcome(StepOutcome::Failed {
                exit_code: result.exit_code,
            });
        }
        if let Some(snapshot) = result.snapshot {
            if detail.key.is_none() {
                self.note_ephemeral(&snapshot);
                self.state().ephemeral.push(snapshot.clone());
            }
            self.state()
                .snapshots
                .insert(attempt.step, snapshot.clone());
            detail.snapshot = Some(snapshot.clone());
            match self.bring_outputs(attempt.step, &snapshot).await {
                Ok(files) => detail.output_files = files,
                Err(error) => return StepEnd::Outcome(broken(&error)),
            }
        }
        StepEnd::Outcome(if result.cached {
            StepOutcome::Cached
        } else {
            StepOutcome::Succeeded
        })
    }

    async fn bring_outputs(&self, id: StepId, snapshot: &SnapshotId) -> Result<u64> {
        let step = self.step(id);
        if step.outputs.is_empty() {
            return Ok(0);
        }
        let directory = &self.plan.pipeline.directory;
        let backend = self.engine.backend().as_ref();
        let base = outputs::working_dir(&self.keeper, &self.plan, id).await?;
        let brought = outputs::bring(backend, step, &base, snapshot, directory).await?;
        for text in brought.notices {
            self.notice(id, text);
        }
        Ok(brought.files)
    }

    /// Should the program be killed, a later run removes the snapshot.
    fn note_ephemeral(&self, snapshot: &SnapshotId) {
        if let Err(error) = self.writer.note_ephemeral(snapshot) {
            tracing::warn!(%snapshot, error = %format!("{error:#}"), "a snapshot is not on record");
        }
    }

    fn hint_at_network(&self, id: StepId, sink: &StepSink) {
        if self.step(id).network == NetworkPolicy::None && sink.said(&NETWORK_WANTED) {
            self.notice(
                id,
                "it has no network; network = \"outbound\" lets it reach the outside".into(),
            );
        }
    }

    fn notice(&self, id: StepId, text: String) {
        self.events.on_event(&RunEvent::Notice {
            step: Some(id),
            text,
        });
    }

    /// Ends what is left of the run: VMs that nobody went on with, and snapshots that were made for it alone.
    pub(super) async fn clean_up(&self) {
        let (slots, ephemeral) = {
            let mut state = self.state();
            (
                std::mem::take(&mut state.slots),
                std::mem::take(&mut state.ephemeral),
            )
        };
        drop(slots);
        for snapshot in ephemeral {
            self.remove(&snapshot).await;
        }
    }

    async fn remove(&self, snapshot: &SnapshotId) {
        match self.engine.remove_snapshot(snapshot).await {
            Ok(()) => self.writer.forget_ephemeral(snapshot),
            Err(error) => {
                tracing::warn!(%snapshot, error = %format!("{error:#}"), "a snapshot of this run was not removed");
            }
        }
    }
}

fn ended_with(error: &anyhow::Error, source: &ImageSource, cancel: &Cancellation) -> StepEnd {
    let outcome = match contract(error) {
        // Whatever it was doing then: it was told to end.
        _ if cancel.cause().is_some() => StepOutcome::Cancelled,
        Some(Error::TimedOut { limit }) => StepOutcome::TimedOut { limit },
        Some(Error::Cancelled { .. }) => StepOutcome::Cancelled,
        Some(Error::SnapshotNotFound { snapshot })
            if *source == ImageSource::Snapshot(snapshot.clone()) =>
        {
            return StepEnd::ParentMissing;
        }
        _ => broken(error),
    };
    StepEnd::Outcome(outcome)
}

fn broken(error: &anyhow::Error) -> StepOutcome {
    let report = Report::of(error);
    StepOutcome::Broken {
        message: report.message.unwrap_or_default(),
        hint: report.hint,
    }
}

fn remove_file(path: &PathBuf) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(anyhow::Error::new(error).context(format!("removing {}", path.display())))
        }
        _ => Ok(()),
    }
}
