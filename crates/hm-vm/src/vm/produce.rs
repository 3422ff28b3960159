//! Running an action: from the creation of its VM to the end of it.

use std::time::Duration;

use anyhow::Result;
use hm_vm_core::{
    CancelCause, Cancellation, Error, ExecOutcome, ExecRequest, ExecutionResult, ImageSource,
    OutputSink, Phase, SnapshotId, SnapshotLabel,
};

use super::execute::{Execution, Turn};
use super::guard::{LiveVm, Unclaimed};
use super::phases::cancelled;
use crate::output::{RecordedOutput, Recorder};
use crate::registry::{Publication, PutDetails, StoredOutput};

/// Time that a backend has for ending a stopped command, after the grace period, before the engine
/// drops the call. Rule V13 makes this needless; a backend that hangs must not hang its callers.
const ABANDON_AFTER: Duration = Duration::from_secs(30);

/// Snapshots of earlier executions whose removal is tried again by each publication.
const RETRIED_REMOVALS: usize = 8;

/// What the VM gave.
#[derive(Default)]
struct Outcome {
    exit_code: i32,
    exec: ExecOutcome,
    entered: Option<SnapshotId>,
    ephemeral: Option<Unclaimed>,
    kept: Option<Unclaimed>,
}

impl Execution<'_> {
    /// Runs the action. With a key, enters the snapshot under it.
    pub(super) async fn produce(
        &mut self,
        cached: Option<(&str, Turn)>,
    ) -> Result<ExecutionResult> {
        let (backend, config) = (&self.engine.backend, &self.engine.config);
        let vm = match &self.action.source {
            ImageSource::Image(image) => {
                let create = backend.create(image, config);
                self.phases.run_or_cancel(Phase::Create, create).await?
            }
            ImageSource::Snapshot(snapshot) => {
                let restore = backend.restore(snapshot, config);
                self.phases.run_or_cancel(Phase::Restore, restore).await?
            }
        };
        let mut vm = LiveVm::new(vm);
        let outcome = self.use_vm(&mut vm, cached).await;
        let destroyed = self.phases.run(Phase::Destroy, vm.destroy()).await;
        if let Err(error) = destroyed {
            self.phases
                .notice(|| format!("failed to free all that the VM held: {error:#}"));
        }
        let outcome = outcome?;
        // No await from here on: who gets the result owns its snapshots.
        Ok(ExecutionResult {
            exit_code: outcome.exit_code,
            snapshot: outcome
                .entered
                .or_else(|| outcome.ephemeral.and_then(Unclaimed::claim)),
            cached: false,
            kept: outcome.kept.and_then(Unclaimed::claim),
            usage: Some(outcome.exec.usage),
            phases: self.phases.take_times(),
            saved: None,
        })
    }

    async fn use_vm(&mut self, vm: &mut LiveVm, cached: Option<(&str, Turn)>) -> Result<Outcome> {
        if let Some(directory) = &self.action.inject {
            let inject = vm.get()?.inject(directory, &self.action.working_dir);
            self.phases.run_or_cancel(Phase::Inject, inject).await?;
        }
        self.phases.check()?;
        let key = cached.as_ref().map(|(key, _)| *key);
        let (exec, output) = self.exec(vm, key).await?;
        let outcome = Outcome {
            exit_code: exec.exit_code,
            exec,
            ..Outcome::default()
        };
        if exec.exit_code != 0 {
            drop(cached);
            let kept = self.keep_failed(vm).await?;
            return Ok(Outcome { kept, ..outcome });
        }
        let Some((key, turn)) = cached else {
            let ephemeral = self.snapshot(vm, &SnapshotLabel::Ephemeral).await?;
            return Ok(Outcome {
                ephemeral: Some(ephemeral),
                ..outcome
            });
        };
        let label = SnapshotLabel::Cached(key.to_owned());
        let snapshot = self.snapshot(vm, &label).await?;
        let entered = self.publish(key, snapshot, output, turn).await?;
        Ok(Outcome { entered, ..outcome })
    }

    async fn snapshot(&mut self, vm: &mut LiveVm, label: &SnapshotLabel) -> Result<Unclaimed> {
        let snapshot = vm.get()?.snapshot(label);
        let snapshot = self.phases.run_or_cancel(Phase::Snapshot, snapshot).await?;
        Ok(Unclaimed::new(
            snapshot,
            &self.engine.backend,
            &self.engine.registry,
        ))
    }

    /// Keeps the state of a failed command, if asked to. That this fails is no failure of the
    /// execution.
    async fn keep_failed(&mut self, vm: &mut LiveVm) -> Result<Option<Unclaimed>> {
        if !self.options.keep_failed {
            return Ok(None);
        }
        match self.snapshot(vm, &SnapshotLabel::Ephemeral).await {
            Ok(kept) => Ok(Some(kept)),
            Err(error) => {
                self.phases.check()?;
                self.phases.notice(|| {
                    format!("failed to keep the state of the failed command: {error:#}")
                });
                Ok(None)
            }
        }
    }

    /// Runs the command; with a key, records its output.
    async fn exec(
        &mut self,
        vm: &mut LiveVm,
        key: Option<&str>,
    ) -> Result<(ExecOutcome, Option<RecordedOutput>)> {
        let Some(key) = key else {
            return Ok((self.exec_to(vm, self.sink).await?, None));
        };
        let recorder = Recorder::new(self.engine.registry.logs(), key, self.sink);
        let outcome = self.exec_to(vm, &recorder).await;
        recorder.flush();
        let outcome = outcome?;
        let (output, failure) = recorder.finish();
        if let Some(error) = failure {
            self.phases
                .notice(|| format!("the output of this command cannot be stored: {error}"));
        }
        Ok((outcome, Some(output)))
    }

    /// Runs the command until it ends, its time is over, or the execution is cancelled.
    async fn exec_to(&mut self, vm: &mut LiveVm, sink: &dyn OutputSink) -> Result<ExecOutcome> {
        let stop = Cancellation::new();
        let request = ExecRequest {
            env: &self.action.env,
            working_dir: &self.action.working_dir,
            grace: self.options.grace,
            ..ExecRequest::new(&self.action.cmd, &stop)
        };
        let exec = vm.get()?.exec_with(&request, sink);
        let watch = stop_in_time(
            &stop,
            self.phases.cancel(),
            self.action.timeout,
            self.options.grace,
        );
        let outcome = self
            .phases
            .run(Phase::Exec, async {
                tokio::select! {
                    biased;
                    outcome = exec => Some(outcome),
                    () = watch => None,
                }
            })
            .await;
        let Some(cause) = stop.cause() else {
            return outcome.unwrap_or_else(|| Err(anyhow::anyhow!("the command was abandoned")));
        };
        // Stopped is stopped, even if the command then ended well: its work may be half done.
        let error = Error::from(cause);
        match outcome {
            None => self
                .phases
                .notice(|| "the backend did not end the command: it was abandoned".into()),
            Some(Err(other)) if other.downcast_ref() != Some(&error) => self
                .phases
                .notice(|| format!("while the command was being stopped: {other:#}")),
            Some(_) => {}
        }
        Err(error.into())
    }

    /// Enters the snapshot under its key, lets the next one have the turn, and removes what the
    /// entry replaces or evicts.
    async fn publish(
        &mut self,
        key: &str,
        snapshot: Unclaimed,
        output: Option<RecordedOutput>,
        turn: Turn,
    ) -> Result<Option<SnapshotId>> {
        if let Err(cancelled) = self.phases.check() {
            self.give_up(snapshot).await;
            return Err(cancelled);
        }
        let begun = self.phases.begin(Phase::Publish);
        let details = PutDetails {
            components: self.options.components.clone(),
            output: output.map(StoredOutput),
        };
        let entered = self.enter(key, snapshot, details).await;
        drop(turn);
        let entered = match entered {
            Ok((snapshot, freed)) => {
                self.remove_freed(freed).await;
                Ok(snapshot)
            }
            Err(error) => Err(error),
        };
        self.phases.end(begun);
        entered
    }

    /// Puts the snapshot into the registry. It has an owner then; if that fails, it is removed.
    async fn enter(
        &mut self,
        key: &str,
        unclaimed: Unclaimed,
        details: PutDetails,
    ) -> Result<(Option<SnapshotId>, Vec<SnapshotId>)> {
        let registry = &self.engine.registry;
        let mut publication = Publication::new(key, unclaimed.id()?, details, true)?;
        match registry.publish_now(&mut publication) {
            Ok(Some(freed)) => Ok((unclaimed.claim(), freed)),
            Err(error) => {
                self.give_up(unclaimed).await;
                Err(error)
            }
            // The file is busy. Should this future be dropped, the thread goes on: so the snapshot
            // goes with it, and is claimed or removed there.
            Ok(None) => {
                let registry = registry.handle();
                tokio::task::spawn_blocking(move || {
                    let freed = registry.publish_blocking(publication)?;
                    Ok((unclaimed.claim(), freed))
                })
                .await?
            }
        }
    }

    async fn give_up(&mut self, snapshot: Unclaimed) {
        if let Err(error) = snapshot.remove().await {
            self.phases
                .notice(|| format!("failed to remove the snapshot: {error:#}"));
        }
    }

    /// Removes what the registry handed back, and tries what earlier executions could not remove.
    async fn remove_freed(&mut self, freed: Vec<SnapshotId>) {
        let (backend, registry) = (&self.engine.backend, &self.engine.registry);
        // All guarded at once: should this be dropped at one, the others go as well.
        let guarded: Vec<(SnapshotId, Unclaimed)> = freed
            .iter()
            .map(|id| (id.clone(), Unclaimed::new(id.clone(), backend, registry)))
            .collect();
        for (id, snapshot) in guarded {
            if let Err(error) = snapshot.remove().await {
                self.phases
                    .notice(|| format!("failed to remove the old snapshot {id}: {error:#}"));
            }
        }
        let earlier = registry
            .doomed(RETRIED_REMOVALS + freed.len())
            .await
            .unwrap_or_default();
        for snapshot in earlier.iter().filter(|id| !freed.contains(id)) {
            if let Err(error) = self.remove_doomed(snapshot).await {
                tracing::debug!(%snapshot, error = %format!("{error:#}"), "a removal failed again");
            }
        }
    }

    async fn remove_doomed(&self, snapshot: &SnapshotId) -> Result<()> {
        self.engine.backend.remove_snapshot(snapshot).await?;
        self.engine.registry.settle(snapshot).await
    }
}

/// Triggers `stop` when the time is over or `cancel` is triggered, and passes a kill on. Returns
/// when the command should long have been dead; never, if nothing stops it.
async fn stop_in_time(
    stop: &Cancellation,
    cancel: Option<&Cancellation>,
    timeout: Option<Duration>,
    grace: Duration,
) {
    let over = async {
        match timeout {
            Some(limit) => {
                tokio::time::sleep(limit).await;
                CancelCause::Timeout(limit)
            }
            None => std::future::pending().await,
        }
    };
    let cause = tokio::select! {
        biased;
        cause = cancelled(cancel) => cause,
        cause = over => cause,
    };
    stop.cancel(cause.clone());
    let killed = async {
        match cancel {
            Some(cancel) => cancel.killed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = killed => stop.kill(cause),
        () = tokio::time::sleep(grace) => {}
    }
    tokio::time::sleep(ABANDON_AFTER).await;
}
