//! The chain of a snapshot that is here.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use hm_vm_core::SnapshotId;
use hm_vm_oci::{Compression, Descriptor, OciError};
use rusqlite::{OptionalExtension, Transaction, params};

use super::adopt::Adoption;
use super::id::{ChainLayer, chain};
use super::plan::{Plan, Row, describe, plan, plan_of_stack};
use crate::db::Failure;
use crate::db::stack;
use crate::error::StoreError;
use crate::export::LayerBlob;
use crate::layers::Held;
use crate::store::Store;

/// How layers travel.
const COMPRESSION: Compression = Compression::Zstd;

/// A snapshot as other stores name it, with its content. What it consists of stays as long as this does,
/// whatever is removed.
#[derive(Debug)]
pub struct SnapshotChain {
    /// What another store needs to know.
    pub adoption: Adoption,
    /// Hash of the image's digest and all diff ids.
    pub chain: String,
    store: Store,
    /// The layers here, by their place; `None` for one that was merged with others.
    numbers: Vec<Option<i64>>,
    /// What was packed already.
    packed: Mutex<Vec<Option<PackedLayer>>>,
    manifests: Vec<Vec<u8>>,
    _held: Held,
}

/// A layer as it travels.
#[derive(Clone, Debug)]
pub struct PackedLayer {
    /// What it is.
    pub blob: Descriptor,
    content: Arc<LayerBlob>,
}

impl PackedLayer {
    /// Its bytes from the first one on, as often as wanted.
    pub fn open(&self) -> Box<dyn Read + Send> {
        self.content.open()
    }
}

/// Keeps the layers of a snapshot, whatever becomes of it.
#[derive(Debug)]
pub struct SnapshotHold {
    _held: Held,
}

impl Store {
    /// Keeps the layers of a snapshot as they are now until [`snapshot_chain`](Self::snapshot_chain) has been asked for.
    /// Quick: one transaction. `None` when it is gone.
    ///
    /// # Errors
    ///
    /// A failure of the database.
    pub fn hold_snapshot(&self, id: &SnapshotId) -> Result<Option<SnapshotHold>, StoreError> {
        let mut held = Held::new(self);
        let found = held.find("holding a snapshot", |tx| {
            let stack: Option<i64> = tx
                .prepare_cached("SELECT stack FROM snapshots WHERE name = ?1")?
                .query_row([id.as_ref()], |row| row.get(0))
                .optional()?;
            let stack = stack.map(|stack| stack::load(tx, stack)).transpose()?;
            let layers = stack.flatten().map(|stack| stack.layers);
            let found = layers.is_some();
            Ok((layers.unwrap_or_default(), found))
        })?;
        Ok(found.then_some(SnapshotHold { _held: held }))
    }

    /// The digest of the image at the root of a snapshot's lineage. `None` when the snapshot is gone, or was made
    /// before that was recorded.
    ///
    /// # Errors
    ///
    /// A failure of the database.
    pub fn snapshot_base(&self, id: &SnapshotId) -> Result<Option<String>, StoreError> {
        self.core().db.read("looking for an image", |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT digest FROM snapshots JOIN stacks ON stacks.id = stack
                     JOIN image_versions ON image_versions.id = version WHERE name = ?1",
                )?
                .query_row([id.as_ref()], |row| row.get(0))
                .optional()?)
        })
    }

    /// A snapshot as other stores name it. Layers whose archives are not known yet are packed for it, which takes
    /// as long as reading and compressing them does; the result is kept, so that the next time is quick.
    ///
    /// # Errors
    ///
    /// [`StoreError::SnapshotNotFound`]; [`StoreError::InvalidInput`] for a snapshot whose image is not known,
    /// or that holds a file that no archive can; or a failure of the system.
    pub fn snapshot_chain(&self, id: &SnapshotId) -> Result<SnapshotChain, StoreError> {
        self.find_chain(id, plan, true)
    }

    /// As [`snapshot_chain`](Self::snapshot_chain), but of the layers as they are now, merged ones among them: all
    /// of them are here. The chain is another one then; it is not kept.
    ///
    /// # Errors
    ///
    /// As [`snapshot_chain`](Self::snapshot_chain).
    pub fn merged_chain(&self, id: &SnapshotId) -> Result<SnapshotChain, StoreError> {
        let plan = |tx: &Transaction<'_>, row: Row| plan_of_stack(tx, row.id, row.stack);
        self.find_chain(id, plan, false)
    }

    fn find_chain(
        &self,
        id: &SnapshotId,
        plan: impl FnOnce(&Transaction<'_>, Row) -> Result<Plan, Failure>,
        keep: bool,
    ) -> Result<SnapshotChain, StoreError> {
        let mut held = Held::new(self);
        let (adoption, manifests, plan) = held.find("looking at a chain", |tx| {
            let (adoption, manifests, row) = describe(tx, id)?;
            let plan = plan(tx, row)?;
            let layers = plan.lineage.iter().flat_map(|(_, own)| own);
            let known = plan.known.iter().filter_map(|(_, number)| number.as_ref());
            let layers = layers.chain(known).copied().collect();
            Ok((layers, (adoption, manifests, plan)))
        })?;
        let mut found = SnapshotChain {
            adoption,
            chain: String::new(),
            store: self.clone(),
            numbers: Vec::new(),
            packed: Mutex::default(),
            manifests,
            _held: held,
        };
        for (layer, number) in plan.known {
            found.push(layer, number, None);
        }
        let mut chains = Vec::new();
        for (row, own) in plan.lineage {
            for number in own {
                found.add(number)?;
            }
            chains.push((row, found.adoption.layers.len()));
        }
        found.chain = found.adoption.chain();
        if keep {
            self.keep_chains(&found, &chains)?;
        }
        Ok(found)
    }

    /// Remembers the chains of snapshots: each has so many of the layers, from the bottom.
    fn keep_chains(
        &self,
        found: &SnapshotChain,
        chains: &[(i64, usize)],
    ) -> Result<(), StoreError> {
        if chains.is_empty() {
            return Ok(());
        }
        let Adoption {
            base_digest,
            layers,
            ..
        } = &found.adoption;
        self.core().db.write("keeping a chain", |tx| {
            for &(row, count) in chains {
                let layers = &layers[..count];
                tx.prepare_cached(
                    "INSERT OR IGNORE INTO snapshot_chains (snapshot, chain, layers)
                     SELECT id, ?2, ?3 FROM snapshots WHERE id = ?1",
                )?
                .execute(params![
                    row,
                    chain(base_digest, layers.iter().map(|layer| &layer.diff_id)),
                    serde_json::to_string(layers).unwrap_or_default()
                ])?;
            }
            Ok(())
        })
    }
}

impl SnapshotChain {
    /// A layer as it travels, by its place. Its blob may be another one than the adoption says, if compression
    /// has changed since; the archive in it is the same. `None` for one that is not here any more: it was merged
    /// with others.
    ///
    /// # Errors
    ///
    /// A failure of the system.
    pub fn pack(&self, place: usize) -> Result<Option<PackedLayer>, StoreError> {
        let packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(packed)) = packed.get(place) {
            return Ok(Some(packed.clone()));
        }
        drop(packed);
        let number = self.numbers.get(place).copied().flatten();
        let Some(number) = number else {
            return Ok(None);
        };
        let content = self.store.core().layer_blob(number, COMPRESSION)?;
        let expected = self.adoption.layers[place].diff_id;
        if content.diff_id != expected {
            return Err(StoreError::Oci(OciError::Mismatch {
                what: format!("layer {number}"),
                reason: format!("its archive is {}, not {expected}", content.diff_id),
            }));
        }
        Ok(Some(PackedLayer {
            blob: content.descriptor.clone(),
            content: Arc::new(content),
        }))
    }

    /// The list of what was injected, by its place in the adoption's injects.
    pub fn inject_manifest(&self, place: usize) -> &[u8] {
        self.manifests.get(place).map_or(&[], Vec::as_slice)
    }

    fn push(&mut self, layer: ChainLayer, number: Option<i64>, packed: Option<PackedLayer>) {
        self.adoption.layers.push(layer);
        self.numbers.push(number);
        let all = self.packed.get_mut();
        all.unwrap_or_else(PoisonError::into_inner).push(packed);
    }

    /// Adds a layer that is here.
    fn add(&mut self, number: i64) -> Result<(), StoreError> {
        let core = self.store.core();
        if let Some((diff_id, blob)) = core.known_blob(number, COMPRESSION)? {
            self.push(ChainLayer { diff_id, blob }, Some(number), None);
            return Ok(());
        }
        let content = core.layer_blob(number, COMPRESSION)?;
        let layer = ChainLayer {
            diff_id: content.diff_id,
            blob: content.descriptor.clone(),
        };
        let packed = PackedLayer {
            blob: content.descriptor.clone(),
            content: Arc::new(content),
        };
        self.push(layer, Some(number), Some(packed));
        Ok(())
    }
}
