//! What a run would do: every step's key, and whether it would be skipped.
//!
//! # The rule
//!
//! A step is skipped when its key has a result, made from the result that its parent has now. A
//! step whose parent runs, runs as well: a parent that is made again may be different, whatever its key says.
//! A step without a result of which only skipped steps fork, and that brings no outputs, is not
//! needed.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use async_trait::async_trait;
use hm_vm_core::{InjectSource, KeyComponents, SnapshotId};

use crate::event::SkipReason;
use crate::pipeline::{Pipeline, StepId};

/// What the planner asks of the world.
#[async_trait]
pub trait PlanInputs: Send + Sync {
    /// Digest of an image's content; `None` where the backend cannot tell.
    async fn image_digest(&self, image: &str) -> Result<Option<String>>;

    /// Digest of what an inject would bring; `None` where the backend cannot tell. Asked once for each source.
    async fn inject_digest(&self, source: &InjectSource) -> Result<Option<String>>;

    /// What the cache has for these keys, in their order. Does not count as a use.
    async fn entries(&self, keys: &[String]) -> Result<Vec<Option<CachedEntry>>>;

    /// Why the cache has nothing for a key that it once had.
    async fn lost(&self, key: &str) -> Result<Option<LostEntry>>;

    /// Paths that differ from the revision that the run compares with, from the pipeline's directory.
    /// `None` when that cannot be told: everything counts as changed then. Asked at most once.
    async fn changed_paths(&self) -> Result<Option<Vec<String>>>;

    /// A variable of the environment that conditions see.
    fn variable(&self, name: &str) -> Option<String>;

    /// Name of the backend, for keys.
    fn backend(&self) -> &str;

    /// Operating system and processor, for keys.
    fn platform(&self) -> String {
        format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
    }
}

/// What the cache has for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedEntry {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The snapshot that it was forked from, where it was recorded.
    pub parent: Option<SnapshotId>,
    /// When it was made.
    pub created: SystemTime,
    /// How long the step took then.
    pub cost: Option<Duration>,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostEntry {
    /// When it went.
    pub at: SystemTime,
    /// By what, in words: `the limit of 100 entries`, `hmvm cache gc`.
    pub by: String,
}

/// What the user asks of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// Names of steps to run, with all that they fork from and need; all steps when empty. The name of a
    /// matrix stands for all of its steps.
    pub targets: Vec<String>,
    /// Run everything.
    pub no_cache: bool,
    /// Run these steps and all that forks from them, whatever the cache has.
    pub from: Vec<String>,
}

/// What a run would do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// One for each step of the pipeline, in its order.
    pub steps: Vec<PlannedStep>,
    /// The steps in an order in which each comes after what it forks from and needs; without those that do
    /// not belong to the run.
    pub order: Vec<StepId>,
}

/// What would become of a step.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    /// Whether it belongs to the run.
    pub selected: bool,
    /// The key that it is cached under; `None` when it is not.
    pub key: Option<String>,
    /// What the key derives from; `None` for an explicit key, and without one.
    pub components: Option<KeyComponents>,
    /// The injects with their digests, in the order of [`Step::injects`](crate::Step::injects).
    pub injects: Vec<PlannedInject>,
    /// What would become of it.
    pub decision: Decision,
}

/// An inject of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedInject {
    /// What is brought.
    pub source: InjectSource,
    /// Where to.
    pub target: String,
    /// Digest of it, if the backend can tell.
    pub digest: Option<String>,
}

/// What would become of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is skipped, as its result is known.
    Hit(CachedEntry),
    /// It runs.
    Run(RunReason),
    /// It is not run.
    Skip(SkipReason),
}

/// Why a step would run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunReason {
    /// The cache has nothing for its key, and is not known to have had.
    NoEntry,
    /// The cache had something.
    Lost(LostEntry),
    /// The result is older than the step allows.
    Expired {
        /// How old it is.
        age: Duration,
        /// How old it may be.
        ttl: Duration,
    },
    /// The step that it forks from runs.
    ParentRuns(StepId),
    /// Its result was made from another result of the step that it forks from.
    ParentRemade(StepId),
    /// The file says that it is not cached.
    CacheOff,
    /// It forks from a step that is not cached.
    ParentUncached(StepId),
    /// The backend cannot tell what the content of its image or files is.
    NoDigest,
    /// The user asked for it.
    Asked,
}
