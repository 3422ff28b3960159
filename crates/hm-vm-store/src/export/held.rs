//! A stack that stays while it is read.

use rusqlite::{Connection, OptionalExtension, params};

use crate::db::stack::{self, Stack};
use crate::error::StoreError;
use crate::store::Store;
use crate::view::release_lease;

/// Holds a stack's layers until dropped; dies with its process.
#[derive(Debug)]
pub(super) struct HeldStack {
    store: Store,
    lease: i64,
    pub(super) stack: Stack,
    pub(super) version: Option<Version>,
}

/// The image that a stack began with.
#[derive(Debug)]
pub(super) struct Version {
    /// Its OCI configuration, if it came with one.
    pub(super) config: Option<String>,
    /// Its layers as others have them, if it was pulled.
    pub(super) layers: Option<String>,
}

impl HeldStack {
    /// Holds the stack that `sql` finds by `name`.
    pub(super) fn find(store: &Store, sql: &str, name: &str) -> Result<Option<Self>, StoreError> {
        let core = store.core();
        let found = core.db.write("leasing layers", |tx| {
            let id: Option<i64> = tx
                .prepare_cached(sql)?
                .query_row([name], |row| row.get(0))
                .optional()?;
            let Some(id) = id else { return Ok(None) };
            let Some(stack) = stack::load(tx, id)? else {
                return Ok(None);
            };
            tx.prepare_cached("INSERT INTO leases (session, stack) VALUES (?1, ?2)")?
                .execute(params![core.session.id, id])?;
            Ok(Some((tx.last_insert_rowid(), stack, version(tx, id)?)))
        })?;
        Ok(found.map(|(lease, stack, version)| Self {
            store: store.clone(),
            lease,
            stack,
            version,
        }))
    }
}

impl Drop for HeldStack {
    fn drop(&mut self) {
        release_lease(&self.store, self.lease, self.stack.id);
    }
}

fn version(connection: &Connection, stack: i64) -> rusqlite::Result<Option<Version>> {
    connection
        .prepare_cached(
            "SELECT config, layers FROM image_versions
             WHERE id = (SELECT version FROM stacks WHERE id = ?1)",
        )?
        .query_row([stack], |row| {
            Ok(Version {
                config: row.get(0)?,
                layers: row.get(1)?,
            })
        })
        .optional()
}
