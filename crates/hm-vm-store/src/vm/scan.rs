//! What an inject would bring.

use std::path::Path;

use hm_vm_core::{InjectEntry, InjectSource};

use crate::error::StoreError;
use crate::inject::{self, EntryKind, StatCache, Tree};
use crate::store::Store;

impl Store {
    /// Digest of what an inject of this host directory would bring. Files that did not change
    /// since the last look are not read.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] when it is not a directory, or a failure to read it.
    pub fn inject_digest(&self, host: &Path) -> Result<String, StoreError> {
        self.inject_digest_of(&InjectSource::directory(host))
    }

    /// As [`inject_digest`](Self::inject_digest), for a part of a directory. That of a plain source
    /// is the same.
    ///
    /// # Errors
    ///
    /// As [`inject_digest`](Self::inject_digest), and for a pattern that makes no sense.
    pub fn inject_digest_of(&self, source: &InjectSource) -> Result<String, StoreError> {
        Ok(self.scan(source)?.digest().to_owned())
    }

    /// The files and links that an inject of this source would bring, sorted by path.
    ///
    /// # Errors
    ///
    /// As [`inject_digest_of`](Self::inject_digest_of).
    pub fn inject_entries(&self, source: &InjectSource) -> Result<Vec<InjectEntry>, StoreError> {
        let tree = self.scan(source)?;
        let mut found: Vec<InjectEntry> = tree.entries().filter_map(|e| inject_entry(&e)).collect();
        // Paths that are not UTF-8 may have come out of order.
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    pub(crate) fn scan(&self, source: &InjectSource) -> Result<Tree, StoreError> {
        let cache = StatCache::new(self.core().layout.stat_cache());
        Ok(inject::scan_source(source, &cache)?)
    }
}

/// An entry as others compare it. `None` for a directory.
fn inject_entry(entry: &inject::Entry<'_>) -> Option<InjectEntry> {
    let (kind, hash) = match entry.kind {
        EntryKind::Directory => return None,
        EntryKind::File { hash, .. } => ('f', blake3::Hash::from_bytes(hash)),
        EntryKind::Symlink { target } => ('l', blake3::hash(target)),
    };
    Some(InjectEntry {
        path: String::from_utf8_lossy(entry.path).into_owned(),
        digest: format!("{kind}{:o}:{}", entry.mode, hash.to_hex()),
    })
}
