//! What the suite needs to know about a backend.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hm_vm_core::VmBackend;

use crate::skip::Skip;

/// One root of a backend under test. Each check gets its own, and drops it at the end.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The backend on this root. Called once, before all else.
    async fn backend(&self) -> Arc<dyn VmBackend>;

    /// A second handle on the same root, as another process would open it: it sees the same
    /// snapshots. `None` where a backend cannot be opened twice.
    async fn reopen(&self) -> Option<Arc<dyn VmBackend>> {
        None
    }

    /// An image that the backend can start, with a POSIX `sh` and the usual tools of busybox or
    /// coreutils.
    fn image(&self) -> &str;

    /// Another image that understands the same commands, whose configuration says this. `None` where that cannot be made: checks
    /// of what images say are skipped then, or fail where all must run.
    async fn configured_image(&self, says: &ImageConfiguration) -> Option<Result<String, Skip>> {
        let _ = says;
        None
    }

    /// All that the backend holds at the moment and that should be gone once no VM and no
    /// snapshot is left: processes, mounts, control groups, directories. Empty is clean. It is
    /// asked repeatedly until it is empty, so a backend may clean up in the background.
    async fn leftovers(&self) -> Vec<String>;

    /// Whether snapshots are layers of images, which are tar archives. Those of Docker have no holes in files, no names that
    /// begin with `.wh.` (they mean that a name is gone), and nothing of the root directory itself: checks leave that out.
    fn layers_are_archives(&self) -> bool {
        false
    }

    /// What commands the guest understands.
    fn shell(&self) -> Shell {
        Shell::Posix
    }

    /// How much work to do.
    fn scale(&self) -> Scale {
        Scale::default()
    }
}

/// What the configuration of an image says of the commands that run in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfiguration {
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Who runs commands.
    pub user: Option<String>,
    /// Where they run.
    pub working_dir: Option<String>,
}

/// What commands a guest understands. Ordered: a richer one does all that a poorer one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shell {
    /// Only the language of [`crate::fake`]. Checks that need more are passed over.
    Minimal,
    /// A real shell and tools.
    Posix,
}

/// How much work the larger checks do. The default is what the rules promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Snapshots in a chain.
    pub chain: usize,
    /// VMs at once.
    pub vms: usize,
    /// Files in one directory.
    pub files: usize,
    /// Bytes of output of one command.
    pub output_bytes: u64,
    /// Time that one check may take before it counts as hanging.
    pub patience: Duration,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            chain: 1000,
            vms: 64,
            files: 100_000,
            output_bytes: 100 << 20,
            patience: Duration::from_secs(300),
        }
    }
}
