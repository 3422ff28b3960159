//! What a command gets beside its files and environment: files from the host, directories that
//! outlive the VM, secrets, a user, a network shared with other VMs.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;

use crate::config::NetworkPolicy;

/// The files of a host directory that are to be brought into a VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InjectSource {
    /// A host directory.
    pub directory: PathBuf,
    /// Bring only what one of these patterns names; everything, when there is none. Patterns are
    /// those of `.gitignore` files, from the directory: `/Cargo.toml`, `src/`, `*.rs`. A pattern that
    /// names a directory brings what is in it.
    pub include: Vec<String>,
    /// Leave out what one of these patterns names, whatever `include` says.
    pub exclude: Vec<String>,
    /// Honour `.gitignore` and `.hmvmignore`.
    pub ignore_files: bool,
}

impl InjectSource {
    /// All of a directory, but what its ignore files name.
    pub fn directory(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            include: Vec::new(),
            exclude: Vec::new(),
            ignore_files: true,
        }
    }

    /// Whether this is what plain [`Vm::inject`](crate::Vm::inject) brings.
    pub fn is_plain(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty() && self.ignore_files
    }
}

/// One file or link that an inject would bring, for comparing two injects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectEntry {
    /// Path from the directory, with `/`. Bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Stands for the content and the mode: differs when one of them does.
    pub digest: String,
}

/// Bytes that must not be seen: never shown by `Debug`, and overwritten when the last clone is gone.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<zeroize::Zeroizing<Vec<u8>>>);

impl Secret {
    /// Wraps the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(zeroize::Zeroizing::new(bytes)))
    }

    /// The bytes. Whoever calls this takes care where they go.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Something that a command sees in its file tree, and that no snapshot keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mount {
    /// A directory of the backend's that is kept under a name, for all VMs of the user. Made when it is
    /// first asked for. Several VMs may have it at once: who needs it alone takes care of that.
    Cache {
        /// Any string that is not empty.
        name: String,
        /// Absolute guest directory. Made when it is missing.
        target: String,
    },
    /// A file in memory, readable by the command's user alone.
    Secret {
        /// Absolute guest path. Its directory is made when it is missing.
        target: String,
        /// What is in it.
        content: Secret,
    },
}

/// Which VMs share a network, and what it reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivateNetworkRequest {
    /// What the VMs reach beside each other. `Host` is refused.
    pub policy: NetworkPolicy,
    /// Names under which the members find each other. All are on one loopback interface: a name
    /// leads to it, and two members cannot listen on one port.
    pub names: Vec<String>,
}

/// A network that several VMs of one backend share, and nobody else reaches. Gone when it is
/// dropped and the last command on it has ended.
#[async_trait]
pub trait PrivateNetwork: Send + Sync + fmt::Debug {
    /// Whether something accepts connections on this TCP port of the network's loopback address.
    ///
    /// # Errors
    ///
    /// A failure to look, never that nobody listens.
    async fn accepts(&self, port: u16) -> Result<bool>;

    /// For the backend that made it, to find its own type.
    fn as_any(&self) -> &dyn Any;
}

/// Which files of a snapshot are to be brought to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRequest {
    /// Guest paths and patterns: `*` and `?` do not match `/`, `**` matches any number of
    /// directories. Relative ones are looked for from `base`. A directory stands for all that is in it.
    pub patterns: Vec<String>,
    /// Absolute guest directory.
    pub base: String,
    /// Host directory to write to; made when it is missing. What a relative pattern finds goes to its path
    /// from `base`; what an absolute one finds, to its last component.
    pub to: PathBuf,
}

/// What [`VmBackend::copy_outputs`](crate::VmBackend::copy_outputs) did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputReport {
    /// Regular files and links that were written.
    pub files: u64,
    /// Regular files and links that were there already, the same.
    pub unchanged: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Patterns that found nothing.
    pub unmatched: Vec<String>,
    /// Guest paths that were left out: devices, fifos, sockets.
    pub skipped: Vec<PathBuf>,
}

/// Refuses an inject that a backend without filters cannot do.
pub(crate) fn plain_directory(source: &InjectSource) -> Result<&Path> {
    if source.is_plain() {
        return Ok(&source.directory);
    }
    Err(crate::Error::Unsupported {
        what: "an inject with patterns".into(),
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        let mount = Mount::Secret {
            target: "/run/secrets/x".into(),
            content: secret,
        };
        assert!(!format!("{mount:?}").contains("hunter2"));
    }

    #[test]
    fn a_filtered_inject_is_not_plain() {
        let mut source = InjectSource::directory("/x");
        assert!(plain_directory(&source).is_ok());
        source.exclude.push("*.o".into());
        assert!(plain_directory(&source).is_err());
    }
}
