//! Actions, snapshots and results.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use crate::event::PhaseTimes;

/// What a VM starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// Boot from an image reference, such as `debian:bookworm` or `host`.
    Image(String),
    /// Fork from a snapshot that an earlier action left.
    Snapshot(SnapshotId),
}

/// One command to run in a VM of its own.
#[derive(Clone, Debug)]
pub struct Action {
    /// What the VM starts from.
    pub source: ImageSource,
    /// The command, run by the guest's `sh -c`.
    pub cmd: String,
    /// Environment variables, declared over the backend's default environment. Of two with one
    /// name, the later one counts.
    pub env: Vec<(String, String)>,
    /// Absolute guest directory in which the command runs, and into which `inject` goes. Created
    /// when something is injected. Empty for the one that the image names, or `/` where it names none.
    pub working_dir: String,
    /// Wall-clock time that the command may take. `None` is no limit.
    pub timeout: Option<Duration>,
    /// A host directory whose contents are copied into `working_dir` before the command runs.
    pub inject: Option<PathBuf>,
}

/// Whether, and under which key, the result of an action is cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachingPolicy {
    /// Always run; the snapshot is ephemeral.
    None,
    /// Skip the action when a snapshot is stored under `key`; store one there when it succeeds.
    Cache {
        /// Any string. [`CacheKey`](crate::CacheKey) derives good ones.
        key: String,
    },
}

/// How a snapshot is to be named by the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotLabel {
    /// Not cached: it exists so that later actions can fork from it.
    Ephemeral,
    /// Stored under a cache key. The key is any string: a backend sanitises it for itself.
    Cached(String),
}

/// Opaque handle of a snapshot, made by a backend and meaningful to that backend alone.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct SnapshotId(String);

impl SnapshotId {
    /// Wraps a backend's own identifier. Any string is accepted.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }
}

impl AsRef<str> for SnapshotId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Deref for SnapshotId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a command used of the machine. A figure that the backend cannot measure is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// From the start of the command to the death of its last process.
    pub wall: Duration,
    /// User and system time of all its processes.
    pub cpu: Option<Duration>,
    /// Peak memory in bytes: of the whole VM where a cgroup counts it, else the largest resident
    /// set of a single process.
    pub peak_memory_bytes: Option<u64>,
    /// Bytes that its processes wrote to storage, page cache included.
    pub written_bytes: Option<u64>,
}

/// Outcome of an action.
#[derive(Clone, Debug, Default)]
pub struct ExecutionResult {
    /// The command's exit code; 128 + N when signal N ended it. 0 for a hit.
    pub exit_code: i32,
    /// The snapshot taken after exit code 0, or found in the cache.
    pub snapshot: Option<SnapshotId>,
    /// Whether the action was skipped because its key had a snapshot.
    pub cached: bool,
    /// Snapshot of a *failed* command, when that was asked for. Never cached: whoever asked for it
    /// removes it.
    pub kept: Option<SnapshotId>,
    /// What the command used. `None` for a hit.
    pub usage: Option<ResourceUsage>,
    /// Where the time went.
    pub phases: PhaseTimes,
    /// For a hit: how long the action took when it ran, where that was recorded.
    pub saved: Option<Duration>,
    /// For a hit that was brought from a cache shared with other machines: what that took.
    pub remote: Option<RemoteHit>,
}

/// What it took to bring a result from elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteHit {
    /// Bytes that came over the network.
    pub bytes: u64,
}
