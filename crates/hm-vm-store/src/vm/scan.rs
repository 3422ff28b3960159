//! What an inject would bring.

use std::path::Path;

use hm_vm_core::{InjectEntry, InjectSource};

use crate::error::StoreError;
use crate::inject::{self, StatCache, Tree};
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
        Ok(inject::listed(&self.scan(source)?))
    }

    pub(crate) fn scan(&self, source: &InjectSource) -> Result<Tree, StoreError> {
        let cache = StatCache::new(self.core().layout.stat_cache());
        Ok(inject::scan_source(source, &cache)?)
    }
}
