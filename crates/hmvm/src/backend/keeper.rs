//! The snapshots of one backend, whichever that is.

use std::path::Path;
use std::sync::Arc;

use hm_vm::docker::DockerBackend;
use hm_vm::gc::SnapshotKeeper;
use hm_vm::sandbox::{SandboxBackend, SandboxOptions};
use hm_vm::store::Store;
use hm_vm::{Error, ImageRegistry, SnapshotId, VmBackend};

use crate::app::App;
use crate::failure::{Problem, explained};
use crate::names;

/// Beginning of the ids of snapshots in daemons.
const DIGEST: &str = "sha256:";

/// Who keeps the snapshots of a backend. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Keeper {
    /// The store, for the sandbox.
    Store(Store),
    /// A daemon of Docker or Podman.
    Daemon(DockerBackend),
}

impl Keeper {
    /// The name of its backend, as users write it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Store(_) => "sandbox",
            Self::Daemon(daemon) => daemon.name(),
        }
    }

    /// The backend.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub(crate) fn backend(&self) -> anyhow::Result<Arc<dyn VmBackend>> {
        Ok(match self {
            Self::Store(store) => Arc::new(SandboxBackend::open(
                store.clone(),
                SandboxOptions::default(),
            )?),
            Self::Daemon(daemon) => Arc::new(daemon.clone()),
        })
    }

    /// Whether both are one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.directory() == other.directory()
    }

    /// Its keys.
    ///
    /// # Errors
    ///
    /// They cannot be opened.
    pub(crate) fn registry(&self, app: &App) -> anyhow::Result<ImageRegistry> {
        app.registry(self.directory())
    }

    /// The directory of its keys.
    fn directory(&self) -> &Path {
        match self {
            Self::Store(store) => store.root(),
            Self::Daemon(daemon) => daemon.state_directory(),
        }
    }

    /// As collections take it.
    pub(crate) fn collected(&self) -> &dyn SnapshotKeeper {
        match self {
            Self::Store(store) => store,
            Self::Daemon(daemon) => daemon,
        }
    }

    /// Whether a snapshot is there. Blocks.
    ///
    /// # Errors
    ///
    /// A failure of the backend.
    pub(crate) fn has(&self, snapshot: &SnapshotId) -> anyhow::Result<bool> {
        self.collected().has(snapshot)
    }

    /// Whether the snapshot may be one of this keeper's, by the form of its id.
    pub(crate) fn may_have(&self, snapshot: &SnapshotId) -> bool {
        snapshot.starts_with(DIGEST) == matches!(self, Self::Daemon(_))
    }

    /// Removes a snapshot. Blocks.
    ///
    /// # Errors
    ///
    /// A failure of the backend.
    pub(crate) fn remove(&self, snapshot: &SnapshotId) -> anyhow::Result<()> {
        self.collected().remove(snapshot)
    }

    /// The snapshot that an id or a unique beginning of one names. Blocks.
    ///
    /// # Errors
    ///
    /// No such snapshot, or several.
    pub(crate) fn resolve(&self, text: &str) -> anyhow::Result<SnapshotId> {
        match self {
            Self::Store(store) => Ok(store.resolve_snapshot(text)?),
            Self::Daemon(daemon) => in_daemon(daemon, text),
        }
    }

    /// The store, for what a daemon cannot do. `what` is that, as in "comparing snapshots".
    ///
    /// # Errors
    ///
    /// The snapshots are kept by a daemon.
    pub(crate) fn store(&self, what: &str) -> Result<&Store, Problem> {
        match self {
            Self::Store(store) => Ok(store),
            Self::Daemon(daemon) => Err(Problem::new(format!(
                "{what} works on snapshots of the sandbox, not on those in {}",
                daemon.name()
            ))
            .hint(format!(
                "hmvm snapshot copy SNAPSHOT --backend {} --to sandbox brings one over",
                daemon.name()
            ))),
        }
    }

    /// The directory that an image names for its commands, if it does.
    ///
    /// # Errors
    ///
    /// A failure of the backend.
    pub(crate) async fn image_working_dir(&self, image: &str) -> anyhow::Result<Option<String>> {
        match self {
            Self::Store(store) => {
                let info = store.image(image)?;
                Ok(info.and_then(|info| info.defaults.working_dir))
            }
            Self::Daemon(daemon) => daemon.image_working_dir(image).await,
        }
    }

    /// Waits until what was removed is gone. Blocks.
    ///
    /// # Errors
    ///
    /// A failure of the store.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        match self {
            Self::Store(store) => store.flush()?,
            Self::Daemon(daemon) => {
                daemon.flush();
            }
        }
        Ok(())
    }
}

fn in_daemon(daemon: &DockerBackend, text: &str) -> anyhow::Result<SnapshotId> {
    let digits = text.strip_prefix(DIGEST).unwrap_or(text);
    let not_found = || Error::SnapshotNotFound {
        snapshot: SnapshotId::new(text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(not_found().into());
    }
    let mut found: Vec<SnapshotId> = daemon
        .kept()?
        .into_iter()
        .map(|kept| kept.id)
        .filter(|id| {
            let own = id.strip_prefix(DIGEST).unwrap_or(id);
            own.starts_with(digits)
        })
        .collect();
    if found.len() > 1 {
        let ids: Vec<&str> = found.iter().take(5).map(|id| names::short(id)).collect();
        let reason = format!("ambiguous: {}", ids.join(", "));
        return Err(explained(
            Error::InvalidInput {
                what: format!("snapshot {text:?}"),
                reason,
            },
            "write more of it",
        ));
    }
    found.pop().ok_or_else(|| not_found().into())
}
