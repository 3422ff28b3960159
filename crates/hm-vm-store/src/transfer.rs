//! Who watches images come and go.

use std::fmt;

use hm_vm_core::Progress;
use hm_vm_oci::Digest;

/// Is told of every part of an image that comes or goes, so that each has a line of its own.
pub trait TransferWatch: Send + Sync + fmt::Debug {
    /// A part begins; what is returned counts its bytes. Parts begin in any order, from any thread, several at once.
    fn part(&self, part: &TransferPart) -> Progress;
}

/// A part of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferPart {
    /// For people: `layer 2/5`, `config`.
    pub label: String,
    /// Digest of its bytes as they travel, if it is known yet.
    pub digest: Option<Digest>,
    /// How many bytes travel, if that is known yet.
    pub bytes: Option<u64>,
    /// Whether it is there already: nothing travels.
    pub present: bool,
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl TransferWatch for Unwatched {
    fn part(&self, _part: &TransferPart) -> Progress {
        Progress::new()
    }
}
