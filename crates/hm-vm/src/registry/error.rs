//! What can go wrong with the registry.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

/// A failure of the registry. In the `anyhow::Error` of the `try_…` methods, `downcast_ref` finds
/// it; where a [`hm_vm_core::Error`] fits, it finds that as well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A file or directory of the registry could not be used.
    #[error("failed to {doing} {}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// SQLite failed.
    #[error("failed to {doing} in the registry {}", .path.display())]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// The registry's file.
        path: PathBuf,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// Another process kept the file locked.
    #[error(
        "failed to {doing} in the registry {}: another process has kept it locked for {} s",
        .path.display(), .waited.as_secs()
    )]
    Busy {
        /// What was being done.
        doing: &'static str,
        /// The registry's file.
        path: PathBuf,
        /// Time spent waiting.
        waited: Duration,
    },
    /// The file is corrupt, foreign, or written by a newer program. It was not changed.
    #[error("{} cannot be used: {reason}", .path.display())]
    BadState {
        /// The registry's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No key, or more than one, begins with what was given.
    #[error("{what}: {reason}")]
    NoSuchKey {
        /// What was given.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl RegistryError {
    /// The contract's error that says the same, if there is one.
    pub fn contract(&self) -> Option<hm_vm_core::Error> {
        match self {
            Self::BadState { path, reason } => Some(hm_vm_core::Error::BadState {
                path: path.display().to_string(),
                reason: reason.clone(),
            }),
            Self::Sqlite {
                doing,
                path,
                source,
            } if is_full(source) => Some(hm_vm_core::Error::NoSpace {
                doing: format!("trying to {doing} in the registry {}", path.display()),
            }),
            Self::Io {
                doing,
                path,
                source,
            } if matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ) =>
            {
                Some(hm_vm_core::Error::NoSpace {
                    doing: format!("trying to {doing} {}", path.display()),
                })
            }
            Self::NoSuchKey { what, reason } => Some(hm_vm_core::Error::InvalidInput {
                what: what.clone(),
                reason: reason.clone(),
            }),
            _ => None,
        }
    }

    /// For the border: the contract's error on top where one fits, this one as its cause.
    pub(crate) fn into_anyhow(self) -> anyhow::Error {
        match self.contract() {
            Some(contract) if contract.to_string() == self.to_string() => {
                anyhow::Error::new(contract)
            }
            Some(contract) => anyhow::Error::new(self).context(contract),
            None => anyhow::Error::new(self),
        }
    }
}

/// Whether SQLite says that the file is not what it should be.
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Whether there is no room on the disk. SQLite tells an index of its log that cannot grow as a
/// failure of its own.
fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error
            .sqlite_error()
            .is_some_and(|failure| failure.extended_code == SQLITE_IOERR_SHMSIZE)
}

/// Whether another connection is in the way, so that trying again can help.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
