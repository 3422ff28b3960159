//! What an import may do, and what it did.

use std::path::PathBuf;

use hm_vm_core::Progress;

/// How large a source may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportLimits {
    /// Bytes of all files together, holes included; and bytes of the unpacked archive.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
}

impl Default for ImportLimits {
    /// 64 GiB and five million entries.
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 5_000_000,
        }
    }
}

/// How to import. The default suits an ordinary user in a user namespace.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// How large the source may be.
    pub limits: ImportLimits,
    /// Make device nodes. Only the real root can; otherwise they are left out with a notice.
    /// Character device 0/0, which is overlayfs' whiteout, is always left out.
    pub devices: bool,
    /// For a directory that is read inside a user namespace: an owner that the namespace does not
    /// know (it reads as 65534 there) becomes root.
    pub unknown_owner_is_root: bool,
    /// Directories that are left out when they lie in an imported directory, such as the store.
    pub exclude: Vec<PathBuf>,
    /// Where the work is counted: bytes of the archive as it lies there, entries of a directory.
    pub progress: Progress,
}

/// What was imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Number of entries in the resulting tree, its root not counted.
    pub entries: u64,
    /// Bytes of all files together, holes included, hard links counted once.
    pub bytes: u64,
    /// BLAKE3 hash, in hex, of the resulting tree.
    pub digest: String,
    /// Things that the user should know.
    pub notices: Vec<String>,
}
