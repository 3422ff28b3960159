//! How an import fails.

use std::io;
use std::path::{Path, PathBuf};

use crate::beneath::FileFailure;

/// Why a root file system could not be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The source is not what can be imported, is damaged, or tries something that no root file
    /// system has a reason for.
    #[error("{}: {reason}", .path.display())]
    InvalidInput {
        /// The source, or the entry in it.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The source is larger than what is allowed.
    #[error("more than {limit} {unit} in the source")]
    LimitExceeded {
        /// The limit.
        limit: u64,
        /// Of what: "bytes" or "entries".
        unit: &'static str,
    },
    /// The disk, or the quota of the user, is full.
    #[error("no space left while {} {}", .0.doing, .0.path.display())]
    NoSpace(#[source] FileFailure),
    /// The system refused something else.
    #[error(transparent)]
    File(FileFailure),
}

impl From<FileFailure> for ImportError {
    fn from(failure: FileFailure) -> Self {
        if failure.is_no_space() {
            Self::NoSpace(failure)
        } else {
            Self::File(failure)
        }
    }
}

impl ImportError {
    pub(crate) fn file(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        FileFailure::new(doing, path, source).into()
    }

    pub(crate) fn invalid(path: &Path, reason: impl Into<String>) -> Self {
        Self::InvalidInput {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}
