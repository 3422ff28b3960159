//! How reading the host fails.

use std::io;
use std::path::Path;

use crate::beneath::FileFailure;

/// Why the `host` image could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The disk, or the quota of the user, is full.
    #[error("no space left while {} {}", .0.doing, .0.path.display())]
    NoSpace(#[source] FileFailure),
    /// The system refused something else.
    #[error(transparent)]
    File(FileFailure),
}

impl From<FileFailure> for HostError {
    fn from(failure: FileFailure) -> Self {
        if failure.is_no_space() {
            Self::NoSpace(failure)
        } else {
            Self::File(failure)
        }
    }
}

impl HostError {
    pub(crate) fn file(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        FileFailure::new(doing, path, source).into()
    }
}
