//! Sizes of layers and snapshots.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::params;

use crate::error::{Context, StoreError};
use crate::store::Core;
use crate::tree::measure::{Size, measure};

/// Measures all layers that have no size yet, then settles the sizes of snapshots.
pub(crate) fn measure_all(core: &Core, stop: &AtomicBool) -> Result<(), StoreError> {
    let layers: Vec<i64> = core
        .db
        .read("looking for layers to measure", |connection| {
            Ok(connection
                .prepare_cached("SELECT id FROM layers WHERE bytes IS NULL AND state = 1")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?)
        })?;
    for layer in layers {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let tree = core.layout.layer_tree(layer);
        match core.files.run(|| measure(&tree))? {
            Ok(size) => record(core, layer, size)?,
            // Removed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("measuring", &tree),
        }
    }
    settle_snapshots(core)
}

fn record(core: &Core, layer: i64, size: Size) -> Result<(), StoreError> {
    core.db.write("recording the size of a layer", |tx| {
        tx.prepare_cached("UPDATE layers SET bytes = ?2, linked_bytes = ?3 WHERE id = ?1")?
            .execute(params![layer, size.bytes, size.linked_bytes])?;
        Ok(())
    })
}

/// A snapshot's own size is that of the layers that its commit added, as they were then.
fn settle_snapshots(core: &Core) -> Result<(), StoreError> {
    let any = core
        .db
        .read("looking for snapshots to measure", |connection| {
            Ok(connection
                .prepare_cached("SELECT 1 FROM snapshots WHERE own_bytes IS NULL")?
                .exists([])?)
        })?;
    if !any {
        return Ok(());
    }
    core.db.write("recording the sizes of snapshots", |tx| {
        tx.prepare_cached(
            "UPDATE snapshots SET own_bytes = (
                 SELECT CASE WHEN count(*) = count(bytes) THEN coalesce(sum(bytes), 0) END
                 FROM json_each(snapshots.own_layers) AS own
                 LEFT JOIN layers ON layers.id = own.value)
             WHERE own_bytes IS NULL",
        )?
        .execute([])?;
        Ok(())
    })
}
