//! Writing a scanned tree as a layer.

use std::fmt;
use std::path::Path;

use super::{GuestView, InjectError, Tree};

/// An earlier inject layer whose files may be shared by hard links.
#[derive(Clone, Copy, Debug)]
pub struct LinkSource<'a> {
    /// What was written there.
    pub tree: &'a Tree,
    /// The layer's tree, on the same file system as the new one.
    pub layer: &'a Path,
    /// The guest directory that it was written for.
    pub guest_dir: &'a Path,
}

/// What to write where.
#[derive(Clone, Copy)]
pub struct LayerRequest<'a> {
    /// The directory that the tree was scanned from.
    pub host_dir: &'a Path,
    /// The new layer's tree: an existing, empty directory.
    pub dest: &'a Path,
    /// Absolute guest directory, without `.`, `..` and symbolic links (the caller resolves them).
    /// Missing components are made with mode 0755.
    pub guest_dir: &'a Path,
    /// The guest's files below the new layer. Tells attributes of directories that exist, and
    /// what of `replaces` is still there.
    pub guest: &'a dyn GuestView,
    /// What the last inject into the same guest directory of this VM's lineage brought: what of
    /// it is not in the new tree is removed by whiteouts.
    pub replaces: Option<&'a Tree>,
    /// An earlier layer, of any lineage, to link files from.
    pub link_from: Option<LinkSource<'a>>,
}

impl fmt::Debug for LayerRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerRequest")
            .field("host_dir", &self.host_dir)
            .field("dest", &self.dest)
            .field("guest_dir", &self.guest_dir)
            .finish_non_exhaustive()
    }
}

/// What a layer was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerReport {
    /// Files whose content was copied or cloned.
    pub files_copied: u64,
    /// Files that are hard links into the earlier layer.
    pub files_linked: u64,
    /// Bytes of the copied files.
    pub bytes_copied: u64,
    /// Directories of the tree.
    pub directories: u64,
    /// Symbolic links of the tree.
    pub symlinks: u64,
    /// Entries of the replaced tree that were removed.
    pub whiteouts: u64,
}

/// Digest of the layer that [`write_layer`] would make: of the tree, the place, the attributes of
/// the directories on the way, and what is removed. Two requests with one identity make the same
/// layer (but for modification times), so that the first one's can be used again. `host_dir`,
/// `dest` and `link_from` do not matter.
///
/// # Errors
///
/// As [`write_layer`], as far as the request itself and the guest are concerned.
pub fn layer_identity(_tree: &Tree, request: &LayerRequest<'_>) -> Result<String, InjectError> {
    Err(InjectError::invalid(request.dest, "under construction"))
}

/// Writes `tree` as a layer below `dest`, by reading the host directory once more.
///
/// Owners are what the calling user's new files get; modification times those of the host's
/// files, but a linked file keeps the earlier layer's. What an earlier inject brought and the
/// tree no longer has is removed, as far as it is still what that inject brought; a directory
/// that is gone goes with it when the guest made nothing in it, and otherwise stays with what the
/// guest made.
///
/// # Errors
///
/// [`InjectError::ChangedWhileReading`] when a file is not what the scan saw;
/// [`InjectError::InvalidInput`] for a guest directory that cannot be one;
/// [`InjectError::NoSpace`]; or a failure to read or write. `dest` is left half-written then: the
/// caller removes it.
pub fn write_layer(_tree: &Tree, request: &LayerRequest<'_>) -> Result<LayerReport, InjectError> {
    Err(InjectError::invalid(request.dest, "under construction"))
}
