//! Removal of layers and directories that nothing uses any more.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::background::durable;
use crate::db::stack::state;
use crate::error::{Context, StoreError};
use crate::store::Core;
use crate::tree::remove::remove_tree;

/// Removes the layers that this session has to remove.
pub(crate) fn remove_doomed(core: &Core, stop: &AtomicBool) -> Result<(), StoreError> {
    let doomed: Vec<i64> = core.db.read("looking for doomed layers", |connection| {
        Ok(connection
            .prepare_cached("SELECT id FROM layers WHERE session = ?1 AND state = ?2")?
            .query_map([core.session.id, state::DOOMED], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?)
    })?;
    if doomed.is_empty() {
        return Ok(());
    }
    // The log goes to disk first: else, after a loss of power, the row of a snapshot could be
    // back whose layer is gone.
    durable::sync_rows(core)?;
    for layer in doomed {
        let trash = core.discard(&core.layout.layer(layer))?;
        core.db.write("removing a layer", |tx| {
            tx.prepare_cached("DELETE FROM layers WHERE id = ?1")?
                .execute([layer])?;
            Ok(())
        })?;
        if let Some(trash) = trash {
            remove_trash(core, &trash, stop)?;
        }
    }
    Ok(())
}

/// Removes a directory in `trash`. What is left when `stop` is set, a later session removes.
pub(crate) fn remove_trash(core: &Core, path: &Path, stop: &AtomicBool) -> Result<(), StoreError> {
    core.files
        .run(|| remove_tree(path, stop))?
        .context("removing", path)?;
    Ok(())
}
