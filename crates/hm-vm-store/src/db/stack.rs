//! Stacks: the ordered lists of layers that snapshots, images and VMs stand on, and the counting
//! of who uses which layer.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// State of a layer's row.
pub(crate) mod state {
    pub(crate) const PENDING: i64 = 0;
    pub(crate) const PRESENT: i64 = 1;
    pub(crate) const DOOMED: i64 = 2;
}

/// What made a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerKind {
    Commit = 0,
    Image = 1,
    Inject = 2,
    Merged = 3,
}

/// A list of layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    pub(crate) id: i64,
    /// Bottom first.
    pub(crate) layers: Vec<i64>,
    /// Whether the machine's own root lies below.
    pub(crate) host: bool,
    /// How many layers, from the bottom, are the image's.
    pub(crate) base: usize,
}

/// Reads a stack. `None` when it does not exist.
pub(crate) fn load(connection: &Connection, id: i64) -> rusqlite::Result<Option<Stack>> {
    let found = connection
        .prepare_cached("SELECT host, base FROM stacks WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((host, base)) = found else {
        return Ok(None);
    };
    let layers = connection
        .prepare_cached("SELECT layer FROM stack_layers WHERE stack = ?1 ORDER BY position")?
        .query_map([id], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(Stack {
        id,
        layers,
        host,
        base,
    }))
}

/// Makes a stack of these layers, bottom first. Injects of the stack `below` count for it as well, and the
/// image that this began with.
pub(crate) fn create(
    tx: &Transaction<'_>,
    layers: Vec<i64>,
    host: bool,
    base: usize,
    below: Option<i64>,
) -> rusqlite::Result<Stack> {
    tx.prepare_cached(
        "INSERT INTO stacks (host, base, version)
         VALUES (?1, ?2, (SELECT version FROM stacks WHERE id = ?3))",
    )?
    .execute(params![host, base, below])?;
    let id = tx.last_insert_rowid();
    let mut insert =
        tx.prepare_cached("INSERT INTO stack_layers (stack, position, layer) VALUES (?1, ?2, ?3)")?;
    for (position, layer) in layers.iter().enumerate() {
        insert.execute(params![id, position, layer])?;
    }
    if let Some(from) = below {
        tx.prepare_cached(
            "INSERT INTO stack_injects (stack, path, inject)
             SELECT ?1, path, inject FROM stack_injects WHERE stack = ?2",
        )?
        .execute([id, from])?;
    }
    Ok(Stack {
        id,
        layers,
        host,
        base,
    })
}

/// Says which image a new stack begins with: the version of that digest, made where it is missing.
pub(crate) fn set_version(
    tx: &Transaction<'_>,
    stack: i64,
    digest: &str,
    config: Option<&str>,
    layers: Option<&str>,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO image_versions (digest, config, layers) VALUES (?1, ?2, ?3)
         ON CONFLICT (digest) DO NOTHING",
    )?
    .execute(params![digest, config, layers])?;
    tx.prepare_cached(
        "UPDATE stacks SET version = (SELECT id FROM image_versions WHERE digest = ?2) WHERE id = ?1",
    )?
    .execute(params![stack, digest])?;
    Ok(())
}

/// Makes a stack with one more layer on top.
pub(crate) fn push(tx: &Transaction<'_>, below: &Stack, layer: i64) -> rusqlite::Result<Stack> {
    let mut layers = below.layers.clone();
    layers.push(layer);
    create(tx, layers, below.host, below.base, Some(below.id))
}

/// Drops a stack, if nothing stands on it any more, and dooms the layers that nothing else uses.
/// `session` has them removed. Returns whether any layer was doomed.
pub(crate) fn release(tx: &Transaction<'_>, stack: i64, session: i64) -> rusqlite::Result<bool> {
    let used: bool = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM snapshots WHERE stack = ?1)
                 OR EXISTS (SELECT 1 FROM images WHERE stack = ?1)
                 OR EXISTS (SELECT 1 FROM vms WHERE stack = ?1)
                 OR EXISTS (SELECT 1 FROM leases WHERE stack = ?1)",
        )?
        .query_row([stack], |row| row.get(0))?;
    if used {
        return Ok(false);
    }
    let Some(found) = load(tx, stack)? else {
        return Ok(false);
    };
    for sql in [
        "DELETE FROM stack_layers WHERE stack = ?1",
        "DELETE FROM stack_injects WHERE stack = ?1",
        "DELETE FROM stacks WHERE id = ?1",
    ] {
        tx.prepare_cached(sql)?.execute([stack])?;
    }
    let mut any = false;
    for layer in found.layers {
        any |= doom_if_unused(tx, layer, session, true)?;
    }
    Ok(any)
}

/// Dooms a layer that no stack has. `keep_injects` spares layers that the next inject of the same
/// tree would use again.
pub(crate) fn doom_if_unused(
    tx: &Transaction<'_>,
    layer: i64,
    session: i64,
    keep_injects: bool,
) -> rusqlite::Result<bool> {
    let used: bool = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM stack_layers WHERE layer = ?1)
                 OR (?2 AND EXISTS (SELECT 1 FROM injects WHERE layer = ?1))",
        )?
        .query_row(params![layer, keep_injects], |row| row.get(0))?;
    if used {
        return Ok(false);
    }
    tx.prepare_cached("UPDATE injects SET layer = NULL WHERE layer = ?1")?
        .execute([layer])?;
    let changed = tx
        .prepare_cached("UPDATE layers SET state = ?2, session = ?3 WHERE id = ?1 AND state = ?4")?
        .execute(params![layer, state::DOOMED, session, state::PRESENT])?;
    Ok(changed > 0)
}

/// Reserves the number of a layer that this session is going to make.
pub(crate) fn reserve_layer(
    tx: &Transaction<'_>,
    session: i64,
    kind: LayerKind,
    boot: &str,
) -> rusqlite::Result<i64> {
    tx.prepare_cached(
        "INSERT INTO layers (state, session, kind, level, durable, boot)
         VALUES (?1, ?2, ?3, 0, 0, ?4)",
    )?
    .execute(params![state::PENDING, session, kind as i64, boot])?;
    Ok(tx.last_insert_rowid())
}

/// Makes a pending layer visible: its tree is in place.
pub(crate) fn publish_layer(
    tx: &Transaction<'_>,
    layer: i64,
    kind: LayerKind,
) -> rusqlite::Result<()> {
    let changed = tx
        .prepare_cached(
            "UPDATE layers SET state = ?2, session = NULL, kind = ?3 WHERE id = ?1 AND state = ?4",
        )?
        .execute(params![layer, state::PRESENT, kind as i64, state::PENDING])?;
    if changed == 1 {
        Ok(())
    } else {
        Err(rusqlite::Error::StatementChangedRows(changed))
    }
}
