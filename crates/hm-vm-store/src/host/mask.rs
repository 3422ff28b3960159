//! The layer over the host's root that hides its private parts.

use std::path::{Path, PathBuf};

use super::HostError;

/// What to hide beside the usual.
#[derive(Clone, Debug, Default)]
pub struct HostMaskOptions {
    /// The store: hidden, wherever it is.
    pub store_root: PathBuf,
    /// Further absolute paths to hide.
    pub extra: Vec<PathBuf>,
}

/// Makes the layer tree `dest_tree` (an existing empty directory).
///
/// # Errors
///
/// A failure to look at the host or to write.
pub fn mask_layer(dest_tree: &Path, _options: &HostMaskOptions) -> Result<(), HostError> {
    Err(HostError::file(
        "writing",
        dest_tree,
        rustix::io::Errno::NOSYS,
    ))
}
