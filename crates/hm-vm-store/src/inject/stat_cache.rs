//! Remembers the hashes of unchanged files.

use std::path::PathBuf;

/// Where the stat caches of scanned directories are kept: one file for each host directory.
///
/// A cache is only an accelerator. One that is damaged, foreign or gone is made anew, and a
/// failure to write it is not an error.
#[derive(Clone, Debug)]
pub struct StatCache {
    directory: Option<PathBuf>,
}

impl StatCache {
    /// Keeps the caches in `directory`, which is created when needed.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: Some(directory.into()),
        }
    }

    /// Keeps none: each scan reads every file.
    pub fn disabled() -> Self {
        Self { directory: None }
    }
}
