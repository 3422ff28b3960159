//! File work that never leaves a directory, whatever is in it.

use std::io;
use std::path::{Path, PathBuf};

/// What was being done to which path when the system refused it.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {} failed", .path.display())]
pub struct FileFailure {
    /// The action, such as "reading".
    pub doing: &'static str,
    /// Its object.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl FileFailure {
    pub(crate) fn new(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self {
            doing,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// Whether the disk or the quota of the user is full.
    pub fn is_no_space(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}
