//! The walk.

use std::path::Path;

use super::{InjectError, StatCache, Tree};

/// Scans `host_dir` (which may be a symbolic link to a directory). See the [module](super) for
/// what is left out.
///
/// # Errors
///
/// [`InjectError::InvalidInput`] when it is not a directory,
/// [`InjectError::ChangedWhileReading`] when a file changes during the scan, or a failure to
/// read. An entry that vanishes during the scan is left out.
pub fn scan(host_dir: &Path, _cache: &StatCache) -> Result<Tree, InjectError> {
    Err(InjectError::invalid(host_dir, "under construction"))
}
