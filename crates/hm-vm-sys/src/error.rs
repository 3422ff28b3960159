//! The one error of this crate.

use std::io;

/// A system call failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct SysError {
    /// What was being done to what.
    pub doing: String,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl SysError {
    /// An error of `doing`, such as "mounting /proc".
    pub fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            doing: doing.into(),
            source: source.into(),
        }
    }

    /// The error that the last failed libc call of this thread left.
    pub fn last(doing: impl Into<String>) -> Self {
        Self::new(doing, io::Error::last_os_error())
    }

    /// The error number, if it came from the kernel.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}
