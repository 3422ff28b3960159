//! What the rows say of a snapshot's chain.

use std::time::SystemTime;

use hm_vm_core::SnapshotId;
use hm_vm_oci::{Descriptor, Digest, media};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::adopt::Adoption;
use super::id::{ChainInject, ChainLayer};
use super::injects;
use crate::db::Failure;
use crate::db::stack;
use crate::error::StoreError;
use crate::layers::layer_of;
use crate::store::snapshot_time;

/// Longest lineage whose chain is put together from its snapshots.
const MAX_LINEAGE: usize = 4096;

/// What the rows say of a snapshot.
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) parent: Option<String>,
    pub(super) stack: i64,
    pub(super) version: Option<i64>,
    pub(super) own: Vec<i64>,
}

/// A layer, with its number if it is here.
pub(super) type Known = (ChainLayer, Option<i64>);

/// A chain in the making: what is known of it, and the layers above that, of each snapshot.
pub(super) struct Plan {
    pub(super) known: Vec<Known>,
    /// Oldest first: the snapshot's row and its own layers.
    pub(super) lineage: Vec<(i64, Vec<i64>)>,
}

/// What the rows say of a snapshot, but for its layers.
pub(super) fn describe(
    tx: &Transaction<'_>,
    id: &SnapshotId,
) -> Result<(Adoption, Vec<Vec<u8>>, Row), Failure> {
    let missing = || StoreError::SnapshotNotFound {
        snapshot: id.clone(),
    };
    let row = find_row(tx, id)?.ok_or_else(missing)?;
    let base_digest: Option<String> = tx
        .prepare_cached("SELECT digest FROM image_versions WHERE id = ?1")?
        .query_row([row.version], |row| row.get(0))
        .optional()?;
    let base_digest = base_digest.ok_or_else(|| {
        StoreError::invalid(
            format!("snapshot {id}"),
            "its image was not recorded: it was made by an earlier version of this program",
        )
    })?;
    let (label, image, created, depth) = tx
        .prepare_cached("SELECT label, image, created, depth FROM snapshots WHERE id = ?1")?
        .query_row([row.id], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
    let created: SystemTime = snapshot_time(created);
    let injected: Vec<(String, Vec<u8>)> = tx
        .prepare_cached(
            "SELECT path, manifest FROM stack_injects JOIN injects ON injects.id = inject
             WHERE stack = ?1 ORDER BY path",
        )?
        .query_map([row.stack], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let (mut injects, mut manifests) = (Vec::new(), Vec::new());
    for (place, manifest) in injected {
        let manifest_blob = Descriptor::of(injects::MEDIA_TYPE, &manifest);
        injects.push(ChainInject {
            place,
            manifest: manifest_blob,
        });
        manifests.push(manifest);
    }
    let adoption = Adoption {
        id: id.clone(),
        label,
        parent: row.parent.clone().map(SnapshotId::new),
        image,
        base_digest,
        depth,
        created,
        layers: Vec::new(),
        own: row.own.len(),
        injects,
    };
    Ok((adoption, manifests, row))
}

pub(super) fn find_row(connection: &Connection, id: &str) -> rusqlite::Result<Option<Row>> {
    connection
        .prepare_cached(
            "SELECT snapshots.id, parent, stack, own_layers, version
             FROM snapshots JOIN stacks ON stacks.id = stack WHERE name = ?1",
        )?
        .query_row([id], |row| {
            let own: String = row.get(3)?;
            Ok(Row {
                id: row.get(0)?,
                parent: row.get(1)?,
                stack: row.get(2)?,
                own: serde_json::from_str(&own).unwrap_or_default(),
                version: row.get(4)?,
            })
        })
        .optional()
}

/// Finds out what the chain of a snapshot consists of: that of its parent, and its own layers, if all is still there;
/// else the layers that it has now.
pub(super) fn plan(tx: &Transaction<'_>, row: Row) -> Result<Plan, Failure> {
    let (id, stack, version) = (row.id, row.stack, row.version);
    let mut lineage = Vec::new();
    let mut next = Some(row);
    let mut whole = false;
    let mut known = Vec::new();
    while let Some(row) = next.take() {
        if let Some(found) = kept_chain(tx, row.id)? {
            (known, whole) = (found, true);
            break;
        }
        if row.version != version || lineage.len() == MAX_LINEAGE || !are_present(tx, &row.own)? {
            break;
        }
        lineage.push((row.id, row.own));
        match row.parent {
            Some(parent) => next = find_row(tx, &parent)?,
            None => whole = true,
        }
    }
    if whole {
        lineage.reverse();
        return Ok(Plan { known, lineage });
    }
    plan_of_stack(tx, id, stack)
}

/// The chain of the layers that a snapshot has now.
pub(super) fn plan_of_stack(tx: &Transaction<'_>, id: i64, stack: i64) -> Result<Plan, Failure> {
    let layers = match stack::load(tx, stack)? {
        Some(stack) => stack.layers[stack.base..].to_vec(),
        None => Vec::new(),
    };
    Ok(Plan {
        known: Vec::new(),
        lineage: vec![(id, layers)],
    })
}

fn are_present(tx: &Transaction<'_>, layers: &[i64]) -> rusqlite::Result<bool> {
    let mut present = tx.prepare_cached("SELECT 1 FROM layers WHERE id = ?1 AND state = 1")?;
    for layer in layers {
        if !present.exists([layer])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The chain that was found out earlier, with the layers that are here.
fn kept_chain(tx: &Transaction<'_>, snapshot: i64) -> rusqlite::Result<Option<Vec<Known>>> {
    let json: Option<String> = tx
        .prepare_cached("SELECT layers FROM snapshot_chains WHERE snapshot = ?1")?
        .query_row([snapshot], |row| row.get(0))
        .optional()?;
    let Some(layers) = json.and_then(|json| serde_json::from_str::<Vec<ChainLayer>>(&json).ok())
    else {
        return Ok(None);
    };
    layers
        .into_iter()
        .map(|mut layer| {
            // What was checked here counts, not what others said.
            if let Some(blob) = checked_blob(tx, &layer.diff_id)? {
                layer.blob = blob;
            }
            let number = layer_of(tx, &layer.diff_id)?;
            Ok((layer, number))
        })
        .collect::<rusqlite::Result<_>>()
        .map(Some)
}

fn checked_blob(tx: &Transaction<'_>, diff_id: &Digest) -> rusqlite::Result<Option<Descriptor>> {
    let found: Option<(String, u64)> = tx
        .prepare_cached(
            "SELECT digest, size FROM layer_blobs WHERE diff_id = ?1 AND media_type = ?2",
        )?
        .query_row(params![diff_id.to_string(), media::LAYER_ZSTD], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(found.and_then(|(digest, size)| {
        Some(Descriptor::new(
            media::LAYER_ZSTD,
            digest.parse().ok()?,
            size,
        ))
    }))
}
