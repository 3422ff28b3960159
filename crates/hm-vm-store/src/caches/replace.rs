//! Replacing what a cache holds, at once.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::directory::{Place, fill, make, make_private};
use super::lock::{self, CacheLock};
use crate::background::Job;
use crate::error::{Context, StoreError};
use crate::store::{Core, Store};

impl Store {
    /// Holds a cache that is there for one alone, and finds its files. Refused while anybody uses it; whoever only
    /// mounts it later ([`use_cache`](Self::use_cache)) is not kept from it.
    pub(crate) fn hold_cache_to_read(
        &self,
        name: &str,
    ) -> Result<(CacheLock, PathBuf), StoreError> {
        let place = Place::of(name)?;
        let core = self.core();
        match lock::alone(core, &place)? {
            Some(alone) => drop(alone),
            None => {
                let reason = "there is none of this name";
                return Err(StoreError::invalid(format!("cache {name:?}"), reason));
            }
        }
        let held = self.try_lock_cache(name)?.ok_or_else(|| place.in_use())?;
        let tree = core.layout.root().join(held.directory());
        Ok((held, tree))
    }

    /// Puts new files in the place of all that a cache holds; made when it is missing. `write` fills an empty
    /// directory. Whoever looks sees the old files or the new ones; when it fails, the old ones.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] while anybody uses the cache, that of `write`, or a failure of the system.
    pub(crate) fn replace_cache<T>(
        &self,
        name: &str,
        write: impl FnOnce(&Path) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let place = Place::of(name)?;
        let core = self.core();
        // Before the work as well as after it: it may take long.
        drop(lock::alone(core, &place)?);
        make_private(&core.layout.caches())?;
        let new = core.layout.new_tmp(core.session.id);
        let replaced = fill(&new, &place).and_then(|()| {
            let written = write(&new.join("tree"))?;
            put_in(core, &place, &new)?;
            Ok(written)
        });
        // What it held before, or what was to be.
        match core.discard(&new) {
            Ok(Some(trash)) => self.add_job(Job::Trash(trash)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "left in tmp");
            }
        }
        replaced
    }
}

/// Exchanges a cache with a new one.
fn put_in(core: &Core, place: &Place, new: &Path) -> Result<(), StoreError> {
    let path = place.path(core);
    loop {
        make(core, place)?;
        let Some(_alone) = lock::alone(core, place)? else {
            continue;
        };
        // Whoever waits for the lock of the old one sees that it is not in its place any more.
        return match rustix::fs::renameat_with(CWD, new, CWD, &path, RenameFlags::EXCHANGE) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                // A file system that cannot: for a moment there is none.
                let old = new.with_extension("old");
                core.rename(&path, &old)?;
                let put = fs::rename(new, &path).context("creating", &path);
                core.rename(&old, new)?;
                put
            }
            exchanged => exchanged.context("replacing", &path),
        };
    }
}
