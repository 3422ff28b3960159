//! One execution: the cache, the queue for a key, and the replay of stored output.

use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use hm_vm_core::{Action, ExecutionResult, ImageSource, OutputSink, Phase, SnapshotId};

use super::flight::{FIRST_PAUSE, LONGEST_PAUSE, Place};
use super::phases::{Begun, Phases, or_cancel};
use super::setup::Setup;
use super::slot::{IdleVm, VmSlot};
use super::{ExecuteOptions, HmVm};
use crate::key_lock::KeyLock;
use crate::output::{Replay, ReplayError};
use crate::registry::Hit;

/// An execution under way.
pub(super) struct Execution<'a> {
    pub(super) engine: &'a HmVm,
    pub(super) action: &'a Action,
    pub(super) sink: &'a dyn OutputSink,
    pub(super) options: &'a ExecuteOptions,
    pub(super) setup: Setup<'a>,
    pub(super) phases: Phases<'a>,
    /// A snapshot that counts as a miss: the backend could not tell about it, or it is not what was
    /// asked for. It is not looked at again.
    pub(super) passed_over: Option<SnapshotId>,
    /// The VM of an earlier execution, until it is used or ended.
    pub(super) idle: Option<IdleVm>,
    /// When the work began: what a hit saves is counted from here.
    pub(super) begun: Option<Instant>,
}

/// The right to produce a key. Dropped, it goes to the next in the queue.
pub(super) struct Turn {
    // Fields are dropped in this order: who is next in this process must find the lock free.
    _lock: KeyLock,
    _place: Place,
}

/// How the wait for a key ended.
enum Waited {
    /// With somebody else's result.
    Hit(Hit),
    /// With the turn.
    Turn(Turn),
}

impl<'a> Execution<'a> {
    pub(super) fn new(
        engine: &'a HmVm,
        action: &'a Action,
        sink: &'a dyn OutputSink,
        options: &'a ExecuteOptions,
        setup: Setup<'a>,
    ) -> Self {
        Self {
            engine,
            action,
            sink,
            options,
            setup,
            phases: Phases::new(options),
            passed_over: None,
            idle: options.vm.take.as_ref().and_then(VmSlot::take),
            begun: None,
        }
    }

    pub(super) async fn uncached(&mut self) -> Result<ExecutionResult> {
        self.phases.check()?;
        self.produce(None).await
    }

    pub(super) async fn cached(&mut self, key: &str) -> Result<ExecutionResult> {
        self.phases.check()?;
        if !self.options.refresh {
            let begun = self.phases.begin(Phase::Lookup);
            let found = self.lookup(key).await;
            self.phases.end(begun);
            if let Some(hit) = found? {
                return self.hit(hit).await;
            }
        }
        let mut wait = None;
        let waited = self.wait(key, &mut wait).await;
        if let Some(begun) = wait {
            self.phases.end(begun);
        }
        match waited? {
            Waited::Hit(hit) => self.hit(hit).await,
            Waited::Turn(turn) => match self.fetch(key).await? {
                Some((hit, remote)) => {
                    drop(turn);
                    let result = self.hit(hit).await?;
                    Ok(ExecutionResult {
                        remote: Some(remote),
                        ..result
                    })
                }
                None => self.produce(Some((key, turn))).await,
            },
        }
    }

    /// Looks a key up, and asks the backend whether the snapshot is there. One that is not is
    /// forgotten.
    async fn lookup(&mut self, key: &str) -> Result<Option<Hit>> {
        let registry = &self.engine.registry;
        if self.options.refresh {
            return Ok(None);
        }
        let Some(hit) = registry.hit(key).await? else {
            return Ok(None);
        };
        if self.passed_over.as_ref() == Some(&hit.snapshot) {
            return Ok(None);
        }
        if !self.is_wanted(hit.created, hit.parent.as_ref()) {
            self.passed_over = Some(hit.snapshot);
            return Ok(None);
        }
        let exists = self.engine.backend.snapshot_exists(&hit.snapshot);
        match or_cancel(self.phases.cancel(), exists).await {
            Ok(true) => Ok(Some(hit)),
            Ok(false) => {
                tracing::info!(key, snapshot = %hit.snapshot, "the backend has lost a snapshot");
                registry.forget_gone(key, &hit.snapshot).await?;
                Ok(None)
            }
            Err(error) => {
                self.phases.check()?;
                self.phases.notice(|| {
                    format!(
                        "cannot tell whether snapshot {} is there, so the command runs: {error:#}",
                        hit.snapshot
                    )
                });
                self.passed_over = Some(hit.snapshot);
                Ok(None)
            }
        }
    }

    /// Whether a result is young enough, and made from what this action starts from.
    pub(super) fn is_wanted(&self, created: SystemTime, parent: Option<&SnapshotId>) -> bool {
        let is_young = self.options.max_age.is_none_or(|limit| {
            let age = SystemTime::now().duration_since(created);
            // Made after now, by a clock that was set back since: young.
            age.unwrap_or_default() <= limit
        });
        let has_parent = || match (parent, &self.action.source) {
            (None, _) => true,
            (Some(parent), ImageSource::Snapshot(source)) => parent == source,
            (Some(_), ImageSource::Image(_)) => false,
        };
        is_young && (!self.options.same_parent || has_parent())
    }

    /// Waits for the turn, or for somebody else's result. `wait` becomes the phase, if there is a
    /// wait.
    async fn wait(&mut self, key: &str, wait: &mut Option<Begun>) -> Result<Waited> {
        let registry = &self.engine.registry;
        let mut place = self.engine.flights.queue(key);
        if !place.try_take() {
            *wait = Some(self.phases.begin(Phase::Wait));
            or_cancel(self.phases.cancel(), async {
                place.take().await;
                Ok(())
            })
            .await?;
        }
        let path = KeyLock::path(registry.path(), key);
        let mut pause = FIRST_PAUSE;
        loop {
            let lock = KeyLock::try_take(&path)
                .with_context(|| format!("failed to lock {}", path.display()))?;
            // Without the lock, only a snapshot that has come since is worth a closer look.
            let look = lock.is_some()
                || !self.options.refresh
                    && registry
                        .peek(key)?
                        .is_some_and(|snapshot| self.passed_over != Some(snapshot));
            if look && let Some(hit) = self.lookup(key).await? {
                return Ok(Waited::Hit(hit));
            }
            if let Some(lock) = lock {
                return Ok(Waited::Turn(Turn {
                    _lock: lock,
                    _place: place,
                }));
            }
            if wait.is_none() {
                *wait = Some(self.phases.begin(Phase::Wait));
            }
            or_cancel(self.phases.cancel(), async {
                tokio::time::sleep(pause).await;
                Ok(())
            })
            .await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn hit(&mut self, hit: Hit) -> Result<ExecutionResult> {
        self.show_log(&hit);
        self.replay(&hit).await?;
        self.end_idle().await;
        Ok(ExecutionResult {
            snapshot: Some(hit.snapshot),
            cached: true,
            saved: hit.cost,
            phases: self.phases.take_times(),
            ..ExecutionResult::default()
        })
    }

    /// Gives the stored log the name that the caller wants for it.
    fn show_log(&self, hit: &Hit) {
        let (Some(path), Some(log)) = (&self.options.log, &hit.log) else {
            return;
        };
        if let Err(error) = self.engine.registry.logs().show(log, path) {
            let path = path.display();
            self.phases.notice(|| {
                format!("the output of this command cannot be written to {path}: {error}")
            });
        }
    }

    /// Ends the VM of an earlier execution, if it was not used.
    pub(super) async fn end_idle(&mut self) {
        if let Some(idle) = self.idle.take() {
            self.destroy(idle.vm).await;
        }
    }

    /// Delivers the stored output. That it is gone does not make the hit a miss.
    async fn replay(&mut self, hit: &Hit) -> Result<()> {
        let Some(log) = &hit.log else {
            if hit.output_bytes > 0 {
                self.phases
                    .notice(|| "the output of this command was not stored".into());
            }
            return Ok(());
        };
        let failed = match Replay::open(self.engine.registry.logs(), log) {
            Ok(mut replay) => {
                let delivered = self.deliver(&mut replay).await;
                replay.finish(self.sink);
                delivered?
            }
            Err(error) => Some(error),
        };
        if let Some(error) = failed {
            let error = anyhow::Error::from(error);
            self.phases
                .notice(|| format!("the stored output of this command is not whole: {error:#}"));
        }
        Ok(())
    }

    /// Delivers piece by piece, and lets others run in between.
    async fn deliver(&mut self, replay: &mut Replay) -> Result<Option<ReplayError>> {
        loop {
            match replay.deliver(self.sink) {
                Ok(true) => {
                    self.phases.check()?;
                    tokio::task::yield_now().await;
                }
                Ok(false) => return Ok(None),
                Err(error) => return Ok(Some(error)),
            }
        }
    }
}
