//! The result of a scan.

use super::InjectError;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind<'tree> {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// BLAKE3 hash of the content.
        hash: [u8; 32],
    },
    /// A symbolic link.
    Symlink {
        /// Where it points to, any bytes.
        target: &'tree [u8],
    },
}

/// One entry of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'tree> {
    /// Path relative to the injected directory, any bytes but NUL; never empty.
    pub path: &'tree [u8],
    /// What it is.
    pub kind: EntryKind<'tree>,
    /// Permission bits with set-id and sticky bits (07777); 0777 for a symbolic link.
    pub mode: u32,
    /// Modification time in nanoseconds since 1970. Not part of the digest, not stored.
    pub mtime_ns: i64,
}

/// The entries of a scanned directory, sorted by the bytes of their paths, so that a directory
/// comes before what is in it.
#[derive(Clone, Debug, Default)]
pub struct Tree {}

impl Tree {
    /// Number of entries.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        std::iter::empty()
    }

    /// Bytes of all files together.
    pub fn total_bytes(&self) -> u64 {
        0
    }

    /// BLAKE3 hash, in hex, of paths, kinds, modes, contents and link targets. Not of times,
    /// owners, inode numbers or the place of the directory.
    pub fn digest(&self) -> &str {
        ""
    }

    /// Things that the user should know: entries that were left out because they are neither
    /// file, directory nor symbolic link, ignore rules that make no sense. Not stored.
    pub fn notices(&self) -> &[String] {
        &[]
    }

    /// The manifest as bytes, for storage beside the layer.
    pub fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`InjectError::BadManifest`] when it is damaged or of another version.
    pub fn decode(_bytes: &[u8]) -> Result<Self, InjectError> {
        Ok(Self {})
    }
}
