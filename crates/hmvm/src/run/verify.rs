//! Running a cached step again, to see whether it still gives the same files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use hm_pipeline::pipeline::StepBase;
use hm_pipeline::plan::Decision;
use hm_pipeline::{CachedEntry, Plan, RunEventSink, StepId};
use hm_vm::store::{Change, FileKind, Store, View};
use hm_vm::{CachingPolicy, Cancellation, ImageSource, SnapshotId};

use super::action;
use super::keys::Keys;
use super::preparation::Place;
use super::session::Session;
use super::sink::StepSink;

/// What came of running a cached step again.
#[derive(Debug)]
pub(crate) enum Verification {
    /// The same files.
    Same,
    /// Other files than those that are cached.
    Differs {
        /// In content, mode, owner or kind, by path.
        changes: Vec<Change>,
        /// In modification time alone; looked for only when asked.
        times: Vec<PathBuf>,
    },
    /// It failed this time.
    Failed {
        /// Its exit code.
        exit_code: i32,
    },
    /// There is nothing to compare with.
    NotCached,
}

/// How to verify.
pub(crate) struct VerifyOptions {
    /// Compare modification times as well.
    pub(crate) times: bool,
    pub(crate) grace: Duration,
    pub(crate) cancel: Cancellation,
    /// Gets the output of the steps.
    pub(crate) events: Arc<dyn RunEventSink>,
}

impl Session {
    /// Runs one step again in a fresh VM, and compares. Neither the cache nor the step's outputs are touched.
    ///
    /// # Errors
    ///
    /// The step could not be run, or the trees not be compared.
    pub(crate) async fn verify(
        &self,
        plan: &Plan,
        id: StepId,
        options: &VerifyOptions,
    ) -> Result<Verification> {
        let Decision::Hit(entry) = &plan.steps[id.0].decision else {
            return Ok(Verification::NotCached);
        };
        let Some(source) = source(plan, id, entry) else {
            return Ok(Verification::NotCached);
        };
        let step = plan.pipeline.step(id);
        let key = Keys::default().of(plan, id);
        let mut execute = action::options(step, &plan.steps[id.0], &key);
        let place = Place {
            plan,
            engine: &self.engine,
            keeper: &self.keeper,
            events: &options.events,
        };
        execute.preparation = place.preparation(id, |base| source_of(plan, base))?;
        execute.cancel = Some(options.cancel.clone());
        execute.grace = options.grace;
        execute.keep_failed = false;
        execute.max_age = None;
        let sink = StepSink::new(id, Arc::clone(&options.events));
        let action = action::action(step, source)?;
        let result = self
            .engine
            .execute_with(action, CachingPolicy::None, &sink, execute)
            .await?;
        let Some(fresh) = result.snapshot else {
            return Ok(Verification::Failed {
                exit_code: result.exit_code,
            });
        };
        let compared = self.compare(&entry.snapshot, &fresh, options.times).await;
        self.engine.remove_snapshot(&fresh).await?;
        compared
    }

    async fn compare(
        &self,
        cached: &SnapshotId,
        fresh: &SnapshotId,
        times: bool,
    ) -> Result<Verification> {
        let store = self.keeper.store("hmvm verify")?.clone();
        let (cached, fresh) = (cached.clone(), fresh.clone());
        tokio::task::spawn_blocking(move || {
            let changes = store.diff(&cached, &fresh)?;
            let times = if times {
                differing_times(&store, &cached, &fresh, &changes)?
            } else {
                Vec::new()
            };
            Ok(if changes.is_empty() && times.is_empty() {
                Verification::Same
            } else {
                Verification::Differs { changes, times }
            })
        })
        .await
        .context("comparing two snapshots")?
    }
}

/// What the cached result was made from.
fn source(plan: &Plan, id: StepId, entry: &CachedEntry) -> Option<ImageSource> {
    let base = &plan.pipeline.step(id).base;
    match (base, &entry.parent) {
        (StepBase::Step(_), Some(parent)) => Some(ImageSource::Snapshot(parent.clone())),
        (base, _) => source_of(plan, base),
    }
}

fn source_of(plan: &Plan, base: &StepBase) -> Option<ImageSource> {
    match base {
        StepBase::Image(image) => Some(ImageSource::Image(image.clone())),
        StepBase::Step(parent) => match &plan.steps[parent.0].decision {
            Decision::Hit(entry) => Some(ImageSource::Snapshot(entry.snapshot.clone())),
            _ => None,
        },
    }
}

/// Files in both trees of which nothing differs but the modification time.
fn differing_times(
    store: &Store,
    cached: &SnapshotId,
    fresh: &SnapshotId,
    changes: &[Change],
) -> Result<Vec<PathBuf>> {
    let (cached, fresh) = (
        modified(&store.view(cached)?)?,
        modified(&store.view(fresh)?)?,
    );
    let known: std::collections::BTreeSet<&PathBuf> =
        changes.iter().map(|change| &change.path).collect();
    Ok(fresh
        .into_iter()
        .filter(|(path, time)| cached.get(path).is_some_and(|old| old != time))
        .map(|(path, _)| path)
        .filter(|path| !known.contains(path))
        .collect())
}

fn modified(view: &View) -> Result<BTreeMap<PathBuf, SystemTime>> {
    let entries = view.walk()?.into_iter();
    Ok(entries
        .filter(|entry| entry.metadata.kind == FileKind::File)
        .map(|entry| (entry.path, entry.metadata.modified))
        .collect())
}
