//! What the unpacking of a layer may do, and what it did.

use super::root_writer::Attributes;

/// How large a layer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerLimits {
    /// Bytes of all files together, holes included; and bytes of the archive without compression.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
}

impl Default for LayerLimits {
    /// 64 GiB and five million entries.
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 5_000_000,
        }
    }
}

/// How to unpack a layer.
#[derive(Clone, Debug, Default)]
pub struct LayerOptions {
    /// How large the layer may be.
    pub limits: LayerLimits,
    /// Make device nodes. Only the real root can; otherwise they are left out with a notice.
    /// Character device 0/0, which is overlayfs' whiteout, is always left out.
    pub devices: bool,
    /// Whether an entry of the root itself gives the root its mode, owner and extended attributes, and whether
    /// times before 1970 count. Docker heeds neither: this is for layers that were never one of Docker's.
    pub root_entry: bool,
}

/// A hard link to something that the layer itself does not have: it is in a layer below.
#[derive(Clone, Debug)]
pub struct LowerLink {
    /// Where the link is to be, relative to the root.
    pub(crate) path: Vec<u8>,
    /// What it leads to, relative to the root.
    pub(crate) target: Vec<u8>,
    /// What the link says of the file.
    pub(crate) attributes: Attributes,
}

/// What was unpacked.
#[derive(Clone, Debug, Default)]
pub struct LayerReport {
    /// Number of entries of the archive.
    pub entries: u64,
    /// Bytes of all files together, holes included.
    pub bytes: u64,
    /// Hard links that are not made yet: the layers below are needed for it.
    pub needs_lower: Vec<LowerLink>,
    /// Things that the user should know.
    pub notices: Vec<String>,
}
