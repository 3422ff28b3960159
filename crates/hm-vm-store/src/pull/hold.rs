//! Keeping layers from being collected while an image is put together.

use hm_vm_oci::Digest;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::ImageLayer;
use crate::background::Job;
use crate::db::Failure;
use crate::db::stack::{self, LayerKind};
use crate::error::StoreError;
use crate::store::{PendingLayer, Store};

/// Layers that stay as long as this does. Dies with its process: a later session gives them back.
#[derive(Debug)]
pub(super) struct Held<'a> {
    store: &'a Store,
    /// Leases, each with its stack.
    leases: Vec<(i64, i64)>,
}

impl<'a> Held<'a> {
    /// Nothing yet.
    pub(super) fn new(store: &'a Store) -> Self {
        Self {
            store,
            leases: Vec::new(),
        }
    }

    /// Finds the layers that are here, and holds them.
    pub(super) fn known<'b>(
        &mut self,
        diff_ids: impl Iterator<Item = &'b Digest>,
    ) -> Result<Vec<Option<i64>>, StoreError> {
        let core = self.store.core();
        let (lease, known) = core.db.write("looking for layers", |tx| {
            let known: Vec<Option<i64>> = diff_ids
                .map(|diff_id| layer_of(tx, diff_id))
                .collect::<rusqlite::Result<_>>()?;
            let layers: Vec<i64> = known.iter().flatten().copied().collect();
            Ok((lease(tx, core.session.id, layers)?, known))
        })?;
        self.leases.extend(lease);
        Ok(known)
    }

    /// Makes a new layer visible under its diff id, and holds it.
    pub(super) fn publish(
        &mut self,
        pending: PendingLayer<'_>,
        layer: &ImageLayer,
    ) -> Result<i64, StoreError> {
        let (core, number) = (self.store.core(), pending.layer());
        let lease = core.db.write("publishing a layer", |tx| {
            stack::publish_layer(tx, number, LayerKind::Image)?;
            let diff_id = layer.diff_id.to_string();
            tx.prepare_cached(
                "INSERT OR IGNORE INTO layer_diffs (diff_id, layer) VALUES (?1, ?2)",
            )?
            .execute(params![diff_id, number])?;
            note_blob(tx, layer)?;
            lease(tx, core.session.id, vec![number])
        })?;
        pending.published();
        self.leases.extend(lease);
        self.store.add_job(Job::Settle);
        Ok(number)
    }

    /// Holds what another one held as well.
    pub(super) fn join(&mut self, mut other: Self) {
        self.leases.append(&mut other.leases);
    }

    /// Gives everything back inside a transaction. To be followed by [`given_back`](Self::given_back) when that was
    /// committed. Returns whether any layer was doomed.
    pub(super) fn give_back(&self, tx: &Transaction<'_>) -> Result<bool, Failure> {
        let session = self.store.core().session.id;
        let mut doomed = false;
        for &(lease, stack) in &self.leases {
            tx.prepare_cached("DELETE FROM leases WHERE id = ?1")?
                .execute([lease])?;
            doomed |= stack::release(tx, stack, session)?;
        }
        Ok(doomed)
    }

    pub(super) fn given_back(mut self) {
        self.leases.clear();
    }
}

impl Drop for Held<'_> {
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

/// Remembers what the layer is when it is compressed.
pub(super) fn note_blob(tx: &Transaction<'_>, layer: &ImageLayer) -> rusqlite::Result<()> {
    let Some(media_type) = layer.media_type() else {
        return Ok(());
    };
    tx.prepare_cached(
        "INSERT OR IGNORE INTO layer_blobs (diff_id, media_type, digest, size) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        layer.diff_id.to_string(),
        media_type,
        layer.blob.digest.to_string(),
        layer.blob.size
    ])?;
    Ok(())
}

/// A stack of these layers, leased. `None` when there are none.
fn lease(
    tx: &Transaction<'_>,
    session: i64,
    layers: Vec<i64>,
) -> Result<Option<(i64, i64)>, Failure> {
    if layers.is_empty() {
        return Ok(None);
    }
    let stack = stack::create(tx, layers, false, 0, None)?;
    tx.prepare_cached("INSERT INTO leases (session, stack) VALUES (?1, ?2)")?
        .execute([session, stack.id])?;
    Ok(Some((tx.last_insert_rowid(), stack.id)))
}

/// The layer that holds what an archive holds, if it is here.
fn layer_of(connection: &Connection, diff_id: &Digest) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT layer FROM layer_diffs JOIN layers ON layers.id = layer
             WHERE diff_id = ?1 AND state = 1",
        )?
        .query_row([diff_id.to_string()], |row| row.get(0))
        .optional()
}
