//! How an inject fails.

use std::io;
use std::path::{Path, PathBuf};

use crate::beneath::FileFailure;

/// Why a host directory could not be scanned or written as a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InjectError {
    /// Something given by the caller is wrong.
    #[error("{}: {reason}", .path.display())]
    InvalidInput {
        /// What was given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A pattern that makes no sense.
    #[error("pattern {pattern:?}: {reason}")]
    BadPattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the host directory changed between the scan and the copy, or during one of them.
    /// A new scan and inject may succeed.
    #[error("{} changed while it was read", .path.display())]
    ChangedWhileReading {
        /// The file, relative to the host directory.
        path: PathBuf,
    },
    /// A stored manifest is damaged, or of a newer version.
    #[error("the manifest of an injected tree cannot be read: {reason}")]
    BadManifest {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The disk, or the quota of the user, is full.
    #[error("no space left while {} {}", .0.doing, .0.path.display())]
    NoSpace(#[source] FileFailure),
    /// The system refused something else.
    #[error(transparent)]
    File(FileFailure),
}

impl From<FileFailure> for InjectError {
    fn from(failure: FileFailure) -> Self {
        if failure.is_no_space() {
            Self::NoSpace(failure)
        } else {
            Self::File(failure)
        }
    }
}

impl InjectError {
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
