//! The port through which the planner looks at the world.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use async_trait::async_trait;
use hm_vm_core::{InjectSource, SnapshotId};

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
    /// Whether it lies in a cache shared with other machines, and not here yet.
    pub elsewhere: bool,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostEntry {
    /// When it went.
    pub at: SystemTime,
    /// By what, in words: `the limit of 100 entries`, `hmvm cache gc`.
    pub by: String,
}
