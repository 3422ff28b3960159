//! Running an action: from the creation of its VM to the end of it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use hm_vm_core::{
    Action, Error, ExecOutcome, ExecutionResult, ImageSource, InjectSource, Phase, SnapshotId,
    SnapshotLabel, Vm,
};

use super::ExecuteOptions;
use super::execute::{Execution, Turn};
use super::guard::{LiveVm, Unclaimed};
use super::slot::IdleVm;
use super::watch::watch;
use crate::registry::{PutDetails, StoredOutput};

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
        let mut vm = match self.take_idle().await {
            Some(vm) => vm,
            None => self.start().await?,
        };
        let outcome = self.use_vm(&mut vm, cached).await;
        if let Ok(outcome) = &outcome
            && let Some(state) = self.handed_over(outcome)
        {
            self.leave(vm, state);
        } else {
            self.destroy(vm).await;
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
            remote: None,
        })
    }

    async fn start(&mut self) -> Result<LiveVm> {
        let (backend, config) = (&self.engine.backend, self.setup.config);
        self.begun = Some(Instant::now());
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
        Ok(LiveVm::new(vm))
    }

    /// The VM that was handed over, if it is the same as a new one would be. Another one is ended.
    async fn take_idle(&mut self) -> Option<LiveVm> {
        self.begun = Some(Instant::now());
        let idle = self.idle.take()?;
        let is_source =
            matches!(&self.action.source, ImageSource::Snapshot(source) if *source == idle.state);
        let is_same =
            Arc::ptr_eq(&idle.backend, &self.engine.backend) && idle.config == *self.setup.config;
        if is_source && is_same {
            return Some(idle.vm);
        }
        self.destroy(idle.vm).await;
        None
    }

    /// The state of the VM, if it is to be handed over.
    fn handed_over(&self, outcome: &Outcome) -> Option<SnapshotId> {
        self.options.vm.leave.as_ref()?;
        if self.setup.config.disk_size_gb.is_some() {
            return None;
        }
        match (&outcome.entered, &outcome.ephemeral) {
            (Some(entered), _) => Some(entered.clone()),
            (None, Some(ephemeral)) => ephemeral.id().ok().cloned(),
            (None, None) => None,
        }
    }

    fn leave(&self, vm: LiveVm, state: SnapshotId) {
        if let Some(slot) = &self.options.vm.leave {
            slot.put(IdleVm {
                vm,
                backend: Arc::clone(&self.engine.backend),
                state,
                config: self.setup.config.clone(),
            });
        }
    }

    /// Ends a VM. That something of it cannot be freed is no failure of the execution.
    pub(super) async fn destroy(&mut self, vm: LiveVm) {
        let destroyed = self.phases.run(Phase::Destroy, vm.destroy()).await;
        if let Err(error) = destroyed {
            self.phases
                .notice(|| format!("failed to free all that the VM held: {error:#}"));
        }
    }

    async fn use_vm(&mut self, vm: &mut LiveVm, cached: Option<(&str, Turn)>) -> Result<Outcome> {
        self.inject(vm).await?;
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
            if self.options.no_snapshot {
                return Ok(outcome);
            }
            let ephemeral = self.snapshot(vm, &SnapshotLabel::Ephemeral).await?;
            return Ok(Outcome {
                ephemeral: Some(ephemeral),
                ..outcome
            });
        };
        let label = SnapshotLabel::Cached(key.to_owned());
        let snapshot = self.snapshot(vm, &label).await?;
        let details = PutDetails {
            components: self.options.components.clone(),
            output: output.map(StoredOutput),
            parent: match &self.action.source {
                ImageSource::Snapshot(parent) => Some(parent.clone()),
                ImageSource::Image(_) => None,
            },
            cost: self.begun.map(|begun| begun.elapsed()),
            created: None,
        };
        let shared = self.to_share(key, snapshot.id()?, &details);
        let entered = self.publish(key, snapshot, details, turn).await?;
        self.share(shared, entered.as_ref());
        Ok(Outcome { entered, ..outcome })
    }

    async fn inject(&mut self, vm: &mut LiveVm) -> Result<()> {
        if self.action.inject.is_none() && self.options.injects.is_empty() {
            return Ok(());
        }
        let own = self.action.inject.as_ref().map(InjectSource::directory);
        let vm = &**vm.get()?;
        let watched = vm.inject_progress().zip(self.phases.events());
        let injects = injects(vm, own.as_ref(), self.action, self.options);
        let injects = async {
            match watched {
                Some((progress, events)) => {
                    watch(Phase::Inject, injects, &progress, &**events).await
                }
                None => injects.await,
            }
        };
        self.phases.run_or_cancel(Phase::Inject, injects).await
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
}

/// Brings all that is to be injected, one after the other.
///
/// No `async fn`: `vm` must not be shared across an await, so all futures are made before the first one.
fn injects<'a>(
    vm: &'a dyn Vm,
    own: Option<&'a InjectSource>,
    action: &'a Action,
    options: &'a ExecuteOptions,
) -> impl Future<Output = Result<()>> + Send + 'a {
    let plain = own.map(|source| (source, vm.inject_from(source, &action.working_dir)));
    let further: Vec<_> = options
        .injects
        .iter()
        .map(|(source, target)| (source, vm.inject_from(source, target)))
        .collect();
    let digests = options.inject_digests.iter().map(Option::as_ref);
    let digests = digests.chain(std::iter::repeat(None));
    let key = options.components.as_ref();
    let plain_digest = key.and_then(|components| components.inject.as_ref());
    async move {
        if let Some((source, inject)) = plain {
            check_digest(source, plain_digest, inject.await?)?;
        }
        for ((source, inject), expected) in further.into_iter().zip(digests) {
            check_digest(source, expected, inject.await?)?;
        }
        Ok(())
    }
}

/// Fails when an inject brought something else than what its key says.
fn check_digest(
    source: &InjectSource,
    expected: Option<&String>,
    brought: Option<String>,
) -> Result<(), Error> {
    match (expected, brought) {
        (Some(expected), Some(digest)) if *expected != digest => Err(Error::InputChanged {
            directory: source.directory.display().to_string(),
            digest,
        }),
        _ => Ok(()),
    }
}
