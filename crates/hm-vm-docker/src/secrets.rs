//! Files for the secrets of one command: in this machine's memory, where the daemon mounts them from.
//!
//! The files are empty when the container is made; the helper writes them. So they have the command's user for an owner, whose number only
//! the container knows. For a command without secrets there is nothing of this.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use hm_vm_core::Error;

use crate::engine::Engine;
use crate::objects::{Identity, nonce};
use crate::session::Sessions;

/// Where Linux has files in memory that anybody may make.
const MEMORY: &str = "/dev/shm";

/// Where the helper finds all of them.
pub(crate) const PLACE: &str = "/dev/hm-vm-secrets";

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: u64 = 0x0102_1994;

/// What is mounted from this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    /// Path here.
    pub(crate) source: String,
    /// Path in the container.
    pub(crate) target: String,
    /// Whether nobody may write to it there.
    pub(crate) read_only: bool,
}

/// The files of one command. Dropping it removes them.
#[derive(Debug)]
pub(crate) struct SecretFiles {
    directory: PathBuf,
    binds: Vec<Bind>,
}

impl SecretFiles {
    /// A file for each target.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] when the daemon is not on this machine, or there are no files in memory here; or a failure to make them.
    pub(crate) fn make(engine: &Engine, identity: &Identity, targets: &[&str]) -> Result<Self> {
        if !engine.info().is_here {
            return Err(Error::Unsupported {
                what: "a secret on a daemon of another machine".into(),
            }
            .into());
        }
        if !is_in_memory(Path::new(MEMORY)) {
            return Err(Error::Unsupported {
                what: format!("a secret without a file system in memory at {MEMORY}"),
            }
            .into());
        }
        let name = format!("{}{}-{}", prefix(identity), identity.session, nonce());
        let directory = Path::new(MEMORY).join(name);
        let doing = || format!("making {}", directory.display());
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(doing)?;
        let mut files = Self {
            binds: vec![Bind {
                source: directory.display().to_string(),
                target: PLACE.into(),
                read_only: false,
            }],
            directory: directory.clone(),
        };
        for (index, target) in targets.iter().enumerate() {
            let path = directory.join(index.to_string());
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o400)
                .open(&path)
                .with_context(doing)?;
            files.binds.push(Bind {
                source: path.display().to_string(),
                target: (*target).to_owned(),
                read_only: true,
            });
        }
        Ok(files)
    }

    /// What a container mounts of them.
    pub(crate) fn binds(&self) -> &[Bind] {
        &self.binds
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

fn is_in_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS))
}

fn prefix(identity: &Identity) -> String {
    format!("hm-vm-{}-", identity.owner)
}

fn remove(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory) {
        tracing::warn!(%error, "{} was not removed", directory.display());
    }
}

/// Removes the files of sessions that are dead.
pub(crate) fn remove_dead(identity: &Identity, sessions: &Sessions) {
    let Ok(entries) = fs::read_dir(MEMORY) else {
        return;
    };
    let own = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let session = name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix(identity)))
            .and_then(|rest| rest.split_once('-'))
            .map(|(session, _)| session);
        let Some(session) = session.filter(|session| *session != identity.session) else {
            continue;
        };
        // Anybody may make files there; what is not ours is not touched.
        let is_ours = fs::symlink_metadata(entry.path())
            .is_ok_and(|found| found.is_dir() && found.uid() == own);
        if is_ours && sessions.take(session).is_some() {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_from_disks() {
        assert!(!is_in_memory(Path::new("/proc")));
        assert!(!is_in_memory(Path::new("/not/there")));
    }
}
