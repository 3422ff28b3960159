//! What the planner asks of the world, answered by the engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use hm_pipeline::plan::LostEntry;
use hm_pipeline::{CachedEntry, Pipeline, PlanInputs};
use hm_vm::remote::RemoteEntry;
use hm_vm::{Entry, HmVm, InjectSource};

use super::changes;

/// The engine, the environment and git, as the planner sees them.
#[derive(Debug)]
pub(crate) struct EngineInputs {
    engine: Arc<HmVm>,
    directory: PathBuf,
    changed_since: Option<String>,
    variables: BTreeMap<String, String>,
}

impl EngineInputs {
    /// For this pipeline. `changed_since` is the user's; `variables` what conditions see.
    pub(crate) fn new(
        engine: Arc<HmVm>,
        pipeline: &Pipeline,
        changed_since: Option<String>,
        variables: BTreeMap<String, String>,
    ) -> Self {
        Self {
            engine,
            directory: pipeline.directory.clone(),
            changed_since: changed_since.or_else(|| pipeline.changed_since.clone()),
            variables,
        }
    }
}

#[async_trait]
impl PlanInputs for EngineInputs {
    async fn image_digest(&self, image: &str) -> Result<Option<String>> {
        self.engine.backend().image_digest(image).await
    }

    async fn inject_digest(&self, source: &InjectSource) -> Result<Option<String>> {
        self.engine.backend().inject_digest_of(source).await
    }

    async fn entries(&self, keys: &[String]) -> Result<Vec<Option<CachedEntry>>> {
        let found = self.engine.registry().entries_of(keys)?;
        let mut entries: Vec<Option<CachedEntry>> =
            found.into_iter().map(|found| found.map(here)).collect();
        if let Some(remote) = self.engine.remote_cache() {
            let places = (0..keys.len()).filter(|place| entries[*place].is_none());
            let places: Vec<usize> = places.collect();
            let missing: Vec<String> = places.iter().map(|place| keys[*place].clone()).collect();
            if !missing.is_empty() {
                let found = remote.look(&missing).await;
                for (place, found) in places.into_iter().zip(found) {
                    entries[place] = found.map(elsewhere);
                }
            }
        }
        Ok(entries)
    }

    async fn lost(&self, key: &str) -> Result<Option<LostEntry>> {
        let lost = self.engine.registry().lost(key)?;
        Ok(lost.map(|lost| LostEntry {
            at: lost.at,
            by: lost.by,
        }))
    }

    async fn changed_paths(&self) -> Result<Option<Vec<String>>> {
        let (directory, revision) = (self.directory.clone(), self.changed_since.clone());
        tokio::task::spawn_blocking(move || changes::changed_paths(&directory, revision.as_deref()))
            .await
            .context("asking git what has changed")?
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn backend(&self) -> &str {
        self.engine.backend().name()
    }
}

/// A result of this machine.
fn here(entry: Entry) -> CachedEntry {
    CachedEntry {
        snapshot: entry.snapshot,
        parent: entry.parent,
        created: entry.created,
        cost: entry.cost,
        elsewhere: false,
    }
}

/// A result of the shared cache.
fn elsewhere(entry: RemoteEntry) -> CachedEntry {
    CachedEntry {
        snapshot: entry.snapshot,
        parent: entry.parent,
        created: entry.created,
        cost: entry.cost,
        elsewhere: true,
    }
}
