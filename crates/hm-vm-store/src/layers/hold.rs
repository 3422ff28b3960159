//! Keeping layers from being collected while an image or a snapshot is made of them.

use hm_vm_oci::{Descriptor, Digest};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::background::Job;
use crate::db::Failure;
use crate::db::stack::{self, LayerKind};
use crate::error::StoreError;
use crate::store::{PendingLayer, Store};

/// Layers that stay as long as this does. Dies with its process: a later one gives them back.
#[derive(Debug)]
pub(crate) struct Held {
    store: Store,
    /// Leases, each with its stack.
    leases: Vec<(i64, i64)>,
}

impl Held {
    /// Nothing yet.
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            leases: Vec::new(),
        }
    }

    /// Runs `find` and holds the layers that it names, in one transaction.
    pub(crate) fn find<T>(
        &mut self,
        doing: &'static str,
        find: impl FnOnce(&Transaction<'_>) -> Result<(Vec<i64>, T), Failure>,
    ) -> Result<T, StoreError> {
        let core = self.store.core();
        let (lease, found) = core.db.write(doing, |tx| {
            let (layers, found) = find(tx)?;
            let lease = lease(tx, core.session.id, layers)?;
            Ok((lease, found))
        })?;
        self.leases.extend(lease);
        Ok(found)
    }

    /// Finds the layers that are here, by the digests of their archives, and holds them.
    pub(crate) fn known(&mut self, diff_ids: &[Digest]) -> Result<Vec<Option<i64>>, StoreError> {
        self.find("looking for layers", |tx| {
            let known: Vec<Option<i64>> = diff_ids
                .iter()
                .map(|diff_id| layer_of(tx, diff_id))
                .collect::<rusqlite::Result<_>>()?;
            Ok((known.iter().flatten().copied().collect(), known))
        })
    }

    /// Makes a new layer visible, under its diff id, and holds it. `blob` is its archive as it came, if others of that
    /// compression are known by its media type.
    pub(crate) fn publish(
        &mut self,
        pending: PendingLayer<'_>,
        kind: LayerKind,
        diff_id: &Digest,
        blob: Option<&Descriptor>,
    ) -> Result<i64, StoreError> {
        let (core, number) = (self.store.core(), pending.layer());
        let lease = core.db.write("publishing a layer", |tx| {
            stack::publish_layer(tx, number, kind)?;
            tx.prepare_cached(
                "INSERT OR IGNORE INTO layer_diffs (diff_id, layer) VALUES (?1, ?2)",
            )?
            .execute(params![diff_id.to_string(), number])?;
            if let Some(blob) = blob {
                note_blob(tx, diff_id, blob)?;
            }
            lease(tx, core.session.id, vec![number])
        })?;
        pending.published();
        self.leases.extend(lease);
        self.store.add_job(Job::Settle);
        Ok(number)
    }

    /// Holds what another one held as well.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.leases.append(&mut other.leases);
    }

    /// Gives everything back inside a transaction. To be followed by [`given_back`](Self::given_back) when that was
    /// committed. Returns whether any layer was doomed.
    pub(crate) fn give_back(&self, tx: &Transaction<'_>) -> Result<bool, Failure> {
        let session = self.store.core().session.id;
        let mut doomed = false;
        for &(lease, stack) in &self.leases {
            tx.prepare_cached("DELETE FROM leases WHERE id = ?1")?
                .execute([lease])?;
            doomed |= stack::release(tx, stack, session)?;
        }
        Ok(doomed)
    }

    pub(crate) fn given_back(mut self) {
        self.leases.clear();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let core = self.store.core();
        match core.db.write("giving layers back", |tx| self.give_back(tx)) {
            Ok(true) => self.store.add_job(Job::Doomed),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a lease is left");
            }
        }
    }
}

/// Remembers what the archive of a layer is when it is compressed.
pub(crate) fn note_blob(
    tx: &Transaction<'_>,
    diff_id: &Digest,
    blob: &Descriptor,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO layer_blobs (diff_id, media_type, digest, size)
         VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        diff_id.to_string(),
        blob.media_type,
        blob.digest.to_string(),
        blob.size
    ])?;
    Ok(())
}

/// A stack of these layers, leased. `None` when there are none.
fn lease(
    tx: &Transaction<'_>,
    session: i64,
    mut layers: Vec<i64>,
) -> Result<Option<(i64, i64)>, Failure> {
    layers.sort_unstable();
    layers.dedup();
    if layers.is_empty() {
        return Ok(None);
    }
    let stack = stack::create(tx, layers, false, 0, None)?;
    tx.prepare_cached("INSERT INTO leases (session, stack) VALUES (?1, ?2)")?
        .execute([session, stack.id])?;
    Ok(Some((tx.last_insert_rowid(), stack.id)))
}

/// The layer that holds what an archive holds, if it is here.
pub(crate) fn layer_of(connection: &Connection, diff_id: &Digest) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT layer FROM layer_diffs JOIN layers ON layers.id = layer
             WHERE diff_id = ?1 AND state = 1",
        )?
        .query_row([diff_id.to_string()], |row| row.get(0))
        .optional()
}
