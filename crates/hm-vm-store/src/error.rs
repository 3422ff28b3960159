//! What can fail in the store.

use std::io;
use std::path::{Path, PathBuf};

use hm_vm_core::SnapshotId;

use crate::host::HostError;
use crate::import::ImportError;
use crate::inject::InjectError;

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A call to the operating system failed.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done, so that a path can follow.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The database refused an operation.
    #[error("{doing} in {}", path.display())]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The database file.
        path: PathBuf,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The store, or a file of it, is foreign, corrupt, of a newer program, or not safe to use.
    /// Nothing of it was changed.
    #[error("{} cannot be used: {reason}", path.display())]
    BadState {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it, and what the user can do.
        reason: String,
    },
    /// No image of that name.
    #[error("image {image:?} not found")]
    ImageNotFound {
        /// The name as given.
        image: String,
    },
    /// No snapshot of that id.
    #[error("snapshot {snapshot} not found")]
    SnapshotNotFound {
        /// The id as given.
        snapshot: SnapshotId,
    },
    /// Something given by the caller is wrong.
    #[error("{what}: {reason}")]
    InvalidInput {
        /// What was given.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The VM was removed; nothing more can be done with it.
    #[error("VM {vm} was removed")]
    VmRemoved {
        /// Its id.
        vm: String,
    },
    /// A root file system could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A host directory could not be injected.
    #[error(transparent)]
    Inject(#[from] InjectError),
    /// The `host` image could not be prepared.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The caller asked for an end; nothing is left behind.
    #[error("{0}")]
    Cancelled(hm_vm_core::Error),
    /// Images of others, or the places where they lie.
    #[error(transparent)]
    Oci(#[from] hm_vm_oci::OciError),
    /// The user namespace in which files are handled could not be made or entered.
    #[error("handling files in the user namespace")]
    Namespace {
        /// Why it failed.
        #[source]
        source: hm_vm_sys::SysError,
    },
}

impl StoreError {
    /// The failure in the words of the contract, where it has them.
    pub fn contract(&self) -> Option<hm_vm_core::Error> {
        use hm_vm_core::Error;
        match self {
            Self::ImageNotFound { image } => Some(Error::ImageNotFound {
                image: image.clone(),
            }),
            Self::SnapshotNotFound { snapshot } => Some(Error::SnapshotNotFound {
                snapshot: snapshot.clone(),
            }),
            Self::InvalidInput { what, reason } => Some(Error::InvalidInput {
                what: what.clone(),
                reason: reason.clone(),
            }),
            Self::Inject(InjectError::InvalidInput { path, reason })
            | Self::Import(ImportError::InvalidInput { path, reason }) => {
                Some(Error::InvalidInput {
                    what: path.display().to_string(),
                    reason: reason.clone(),
                })
            }
            Self::Inject(InjectError::BadPattern { pattern, reason }) => {
                Some(Error::InvalidInput {
                    what: format!("pattern {pattern:?}"),
                    reason: reason.clone(),
                })
            }
            Self::Import(error @ ImportError::LimitExceeded { .. }) => Some(Error::InvalidInput {
                what: "the image's source".into(),
                reason: error.to_string(),
            }),
            Self::Cancelled(error) | Self::Oci(hm_vm_oci::OciError::Cancelled(error)) => {
                Some(error.clone())
            }
            Self::BadState { path, reason } => Some(Error::BadState {
                path: path.display().to_string(),
                reason: reason.clone(),
            }),
            Self::Inject(InjectError::NoSpace(failure))
            | Self::Import(ImportError::NoSpace(failure)) => Some(Error::NoSpace {
                doing: format!("{} {}", failure.doing, failure.path.display()),
            }),
            _ => self.is_no_space().then(|| Error::NoSpace {
                doing: self.to_string(),
            }),
        }
    }

    /// Whether the disk or the user's quota is full.
    pub fn is_no_space(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<io::Error>()
                && matches!(
                    io.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            {
                return true;
            }
            if let Some(rusqlite::Error::SqliteFailure(failure, _)) = error.downcast_ref()
                && (failure.code == rusqlite::ErrorCode::DiskFull
                    || failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
            {
                return true;
            }
            cause = error.source();
        }
        false
    }

    pub(crate) fn bad_state(path: &Path, reason: impl Into<String>) -> Self {
        Self::BadState {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidInput {
            what: what.into(),
            reason: reason.into(),
        }
    }
}

/// Adds to an I/O failure what was being done to which path.
pub(crate) trait Context<T> {
    fn context(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Io {
            doing,
            path: path.as_ref().to_owned(),
            source: error.into(),
        })
    }
}
