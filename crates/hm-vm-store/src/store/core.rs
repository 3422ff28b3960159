//! What all parts of an open store share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::db::Db;
use crate::error::{Context, StoreError};
use crate::files::Files;
use crate::layout::Layout;
use crate::session::Session;

/// An open store, without its background thread.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) layout: Layout,
    pub(crate) db: Db,
    pub(crate) session: Session,
    /// Id of the machine's current boot.
    pub(crate) boot: String,
    pub(crate) files: Files,
    /// Set when the `host` image was looked after in this session.
    pub(crate) host_prepared: OnceLock<()>,
}

impl Core {
    /// Moves a directory of the store into `trash`. `None` when it is gone already.
    pub(crate) fn discard(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        let trash = self.layout.new_trash(self.session.id);
        match self.rename(path, &trash) {
            Ok(()) => Ok(Some(trash)),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Renames a directory, as whoever may.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        match std::fs::rename(from, to) {
            // A directory that the guest gave to another user.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.files.run(|| std::fs::rename(from, to))?
            }
            other => other,
        }
        .context("renaming", from)
    }
}

impl Drop for Core {
    /// Ends the session. One that still has something to clean up is left for a later session to
    /// take over.
    fn drop(&mut self) {
        let id = self.session.id;
        let ended = self.db.write("ending the session", |tx| {
            let deleted = tx
                .prepare_cached(
                    "DELETE FROM sessions WHERE id = ?1
                     AND NOT EXISTS (SELECT 1 FROM vms WHERE session = ?1)
                     AND NOT EXISTS (SELECT 1 FROM leases WHERE session = ?1)
                     AND NOT EXISTS (SELECT 1 FROM layers WHERE session = ?1)",
                )?
                .execute([id])?;
            Ok(deleted > 0)
        });
        match ended {
            Ok(true) => {
                let _ = std::fs::remove_file(self.layout.session_lock(id));
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "session not ended"
                );
            }
        }
    }
}
