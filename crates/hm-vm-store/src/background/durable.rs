//! Making rows and files survive a loss of power.

use crate::error::{Context, StoreError};
use crate::store::Core;

/// Syncs the file system, then marks as durable what was there before.
pub(crate) fn make_durable(core: &Core) -> Result<(), StoreError> {
    let doing = "looking for what is not durable yet";
    let (layers, snapshots, images) = core.db.read_state(doing, |connection| {
        let ids = |sql: &str| -> rusqlite::Result<Vec<i64>> {
            connection
                .prepare_cached(sql)?
                .query_map([&core.boot], |row| row.get(0))?
                .collect()
        };
        Ok((
            ids("SELECT id FROM layers WHERE durable = 0 AND state = 1 AND boot = ?1")?,
            ids("SELECT id FROM snapshots WHERE durable = 0 AND boot = ?1")?,
            ids("SELECT id FROM images WHERE durable = 0 AND boot = ?1")?,
        ))
    })?;
    if layers.is_empty() && snapshots.is_empty() && images.is_empty() {
        return Ok(());
    }
    sync_files(core)?;
    core.db.write("marking what is durable", |tx| {
        for (table, ids) in [
            ("layers", layers),
            ("snapshots", snapshots),
            ("images", images),
        ] {
            let sql = format!("UPDATE {table} SET durable = 1 WHERE id = ?1");
            let mut update = tx.prepare_cached(&sql)?;
            for id in ids {
                update.execute([id])?;
            }
        }
        Ok(())
    })
}

/// Makes all files as they are now survive a loss of power.
pub(crate) fn sync_files(core: &Core) -> Result<(), StoreError> {
    rustix::fs::syncfs(core.layout.directory()).context("syncing", core.layout.root())
}

/// Makes the rows as they are now survive a loss of power.
pub(crate) fn sync_rows(core: &Core) -> Result<(), StoreError> {
    let path = core.db.log_path();
    std::fs::File::open(&path)
        .and_then(|log| log.sync_data())
        .context("syncing", &path)
}
