//! What a plan is.

use std::time::Duration;

use hm_vm_core::{InjectSource, KeyComponents};

use super::inputs::{CachedEntry, LostEntry};
use crate::event::SkipReason;
use crate::pipeline::{Pipeline, StepId};

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
    /// Whether it belongs to the run. One that does not has no key, no injects, and is `NotNeeded`.
    pub selected: bool,
    /// The key that it is cached under; `None` when it is not, or when its condition does not hold.
    pub key: Option<String>,
    /// What the key derives from; `None` for an explicit key, and without one.
    pub components: Option<KeyComponents>,
    /// The injects with their digests, in the order of [`Step::injects`](crate::Step::injects). Empty when its
    /// condition does not hold.
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
    /// Digest of it, if the step's key derives from it.
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
