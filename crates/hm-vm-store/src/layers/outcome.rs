//! What is asked of the unpacking of a layer, and what comes of it.

use hm_vm_core::{Cancellation, Progress};
use hm_vm_oci::{Descriptor, Digest};

use crate::db::stack::LayerKind;
use crate::import::{LayerLimits, LowerLink};
use crate::store::PendingLayer;

/// Annotation of layers that this program packed: they say of the root and of times before 1970 what is so, where
/// Docker does not listen.
pub(crate) const OWN_LAYER: &str = "dev.hm-vm.layer";

/// Which layer to unpack, and how.
#[derive(Clone, Debug)]
pub(crate) struct LayerRequest {
    /// Size and digest of the bytes as they come.
    pub(crate) blob: Descriptor,
    /// The digest that the archive without compression must have, if it is known.
    pub(crate) diff_id: Option<Digest>,
    /// What the layer will be.
    pub(crate) kind: LayerKind,
    /// Whether an entry of the root itself counts, and times before 1970. Docker heeds neither, but our own layers
    /// have both.
    pub(crate) root_entry: bool,
    /// How large it may be.
    pub(crate) limits: LayerLimits,
    /// Counts bytes as they come.
    pub(crate) progress: Progress,
    /// Ends the work, between two blocks of data.
    pub(crate) cancel: Cancellation,
}

impl LayerRequest {
    /// A layer of an image, with the usual limits.
    pub(crate) fn new(blob: Descriptor, diff_id: Option<Digest>) -> Self {
        Self {
            blob,
            diff_id,
            kind: LayerKind::Image,
            root_entry: false,
            limits: LayerLimits::default(),
            progress: Progress::new(),
            cancel: Cancellation::new(),
        }
    }
}

/// A layer that is in place, but not visible yet.
#[derive(Debug)]
pub(crate) struct UnpackedLayer<'a> {
    /// Its number. Removed when dropped, unless it is published.
    pub(crate) pending: PendingLayer<'a>,
    /// Hard links into layers below, which `resolve_links` makes. A layer that has any must not be used for
    /// another image.
    pub(crate) needs_lower: Vec<LowerLink>,
    /// Bytes of all files together, holes included.
    pub(crate) bytes: u64,
    /// Number of entries of the archive.
    pub(crate) entries: u64,
    /// Things that the user should know.
    pub(crate) notices: Vec<String>,
}
