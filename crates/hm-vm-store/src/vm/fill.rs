//! Files that a VM wrote elsewhere.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::error::{Context, StoreError};
use crate::tree::merge::merge;
use crate::vm::VmFiles;

impl VmFiles {
    /// Copies a tree into the upper directory, which must be empty: for a VM whose upper directory
    /// lay on another file system. Whiteouts and opaque marks are kept as they are.
    ///
    /// # Errors
    ///
    /// A failure to read or write. The upper directory may then hold a part of the tree: the VM
    /// should be removed.
    pub fn fill(&self, source: &Path) -> Result<(), StoreError> {
        let _state = self.lock_at_rest()?;
        let upper = self.upper_path();
        let core = self.store.core();
        let never = AtomicBool::new(false);
        let merged: io::Result<bool> = core.files.run(|| merge(&[source], &upper, &never))?;
        merged.context("filling", &upper).map(drop)
    }
}
