//! What a step needs only when it really runs: its turn at cache directories, its secrets, its services.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use hm_pipeline::pipeline::{CacheDirectory, SecretUse, StepBase};
use hm_pipeline::{Plan, RunEvent, RunEventSink, StepId};
use hm_vm::{HmVm, ImageSource, Mount, Preparation, Prepared};

use super::secrets;
use super::services::{ServicePlan, Services};
use crate::backend::{CacheTurn, Keeper};

/// Time between two tries to have a cache directory that another run has.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What preparations are made from.
pub(super) struct Place<'a> {
    pub(super) plan: &'a Plan,
    pub(super) engine: &'a HmVm,
    pub(super) keeper: &'a Keeper,
    pub(super) events: &'a Arc<dyn RunEventSink>,
}

impl Place<'_> {
    /// The preparation of a step that has something to prepare. `source_of` knows the snapshots of other steps.
    ///
    /// # Errors
    ///
    /// The snapshot that a service starts from is gone.
    pub(super) fn preparation(
        &self,
        id: StepId,
        source_of: impl Fn(&StepBase) -> Option<ImageSource>,
    ) -> Result<Option<Arc<dyn Preparation>>> {
        let step = self.plan.pipeline.step(id);
        if step.caches.is_empty() && step.secrets.is_empty() && step.services.is_empty() {
            return Ok(None);
        }
        let mut services = Vec::new();
        for service in &step.services {
            let source = source_of(&service.base).ok_or_else(|| {
                anyhow::anyhow!(
                    "the snapshot that service {} starts from is gone: run its step again",
                    service.name
                )
            })?;
            services.push((service.clone(), source));
        }
        let services = (!services.is_empty()).then(|| ServicePlan {
            backend: Arc::clone(self.engine.backend()),
            events: Arc::clone(self.events),
            step: id,
            network: step.network,
            services,
        });
        Ok(Some(Arc::new(StepPreparation {
            step: id,
            keeper: self.keeper.clone(),
            events: Arc::clone(self.events),
            directory: self.plan.pipeline.directory.clone(),
            caches: step.caches.clone(),
            secrets: step.secrets.clone(),
            services,
            held: Mutex::new(Held::default()),
        })))
    }
}

/// The preparation of one step.
struct StepPreparation {
    step: StepId,
    keeper: Keeper,
    events: Arc<dyn RunEventSink>,
    /// Where relative host paths start from.
    directory: PathBuf,
    caches: Vec<CacheDirectory>,
    secrets: Vec<SecretUse>,
    services: Option<ServicePlan>,
    held: Mutex<Held>,
}

/// What is held while the command runs.
#[derive(Debug, Default)]
struct Held {
    turns: Vec<CacheTurn>,
    services: Option<Services>,
}

impl StepPreparation {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn at every cache directory. Always in the order of their names, so that two steps that
    /// need the same ones do not wait for each other.
    async fn take_caches(&self) -> Result<()> {
        let mut caches: Vec<&CacheDirectory> = self.caches.iter().collect();
        caches.sort_by(|a, b| a.name.cmp(&b.name));
        caches.dedup_by(|a, b| a.name == b.name);
        for cache in caches {
            let (mut pause, mut told) = (FIRST_PAUSE, false);
            let turn = loop {
                if let Some(turn) = self.keeper.try_turn(&cache.name, cache.sharing)? {
                    break turn;
                }
                if !told && pause == LONGEST_PAUSE {
                    told = true;
                    self.notice(format!(
                        "waiting for the cache {:?}, which another run has",
                        cache.name
                    ));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            };
            self.held().turns.push(turn);
        }
        Ok(())
    }

    fn notice(&self, text: String) {
        self.events.on_event(&RunEvent::Notice {
            step: Some(self.step),
            text,
        });
    }
}

#[async_trait]
impl Preparation for StepPreparation {
    async fn prepare(&self) -> Result<Prepared> {
        self.take_caches().await?;
        let secrets = secrets::read(&self.secrets, &self.directory)?;
        let mut mounts = secrets.mounts;
        mounts.extend(self.caches.iter().map(|cache| Mount::Cache {
            name: cache.name.clone(),
            target: cache.target.clone(),
        }));
        let mut prepared = Prepared {
            mounts,
            secret_env: secrets.env,
            ..Prepared::default()
        };
        if let Some(plan) = &self.services {
            let services = plan.start().await?;
            prepared.network = Some(Arc::clone(services.network()));
            self.held().services = Some(services);
        }
        Ok(prepared)
    }

    async fn finish(&self) {
        let held = std::mem::take(&mut *self.held());
        if let Some(services) = held.services {
            services.end().await;
        }
        drop(held.turns);
    }
}
