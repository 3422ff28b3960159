//! Making a snapshot of another store one of this store.

use std::time::{SystemTime, UNIX_EPOCH};

use hm_vm_core::{Cancellation, Progress, ProgressUnit, SnapshotId};
use hm_vm_oci::Source;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::id::{ChainInject, ChainLayer, chains};
use super::injects::{self, Inject};
use super::missing::{self, Wanted};
use crate::background::Job;
use crate::background::flatten::RUN;
use crate::db::Failure;
use crate::db::stack;
use crate::error::StoreError;
use crate::layers::{Held, layer_of};
use crate::store::{Store, now_micros};

/// Most layers that a chain may have.
const MAX_LAYERS: usize = 4096;

/// Most places with injects that a snapshot may have.
const MAX_INJECTS: usize = 256;

/// A snapshot of another store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// Its id, there and here: 32 lower-case hexadecimal digits.
    pub id: SnapshotId,
    /// The label of its commit.
    pub label: Option<String>,
    /// The snapshot that it was forked from. It need not be here.
    pub parent: Option<SnapshotId>,
    /// What its image is called there. Where this store has that image, its own name for it counts.
    pub image: Option<String>,
    /// Digest of its image, which must be here: under a name, or below another snapshot.
    pub base_digest: String,
    /// Number of snapshots in its lineage, itself included. Where the parent is here, its own number counts.
    pub depth: u32,
    /// When it was made.
    pub created: SystemTime,
    /// Its layers above the image, bottom first.
    pub layers: Vec<ChainLayer>,
    /// How many of these, from the top, its own commit added.
    pub own: usize,
    /// What was injected into it.
    pub injects: Vec<ChainInject>,
}

/// What an adoption took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Whether the snapshot was here before: nothing was done.
    pub was_here: bool,
    /// Number of layers that came.
    pub layers: usize,
    /// Bytes that came.
    pub bytes: u64,
}

/// What the new snapshot is going to stand on.
struct Ground {
    /// How many layers of the chain this is.
    prefix: usize,
    /// The layers here, the image's included.
    layers: Vec<i64>,
    host: bool,
    /// How many of them are the image's.
    base: usize,
    version: i64,
    /// Layers of the chain above that are here, by their place.
    known: Vec<Option<i64>>,
}

impl Store {
    /// Makes a snapshot of another store one of this store, with the same id and the same files. Layers that are here
    /// are not fetched: those of a snapshot with the beginning of the chain, and others known by their diff
    /// id. The rest is read from `source`, several at once, and checked while it comes. `progress` counts its bytes.
    ///
    /// Does nothing when the snapshot is here, with the same chain.
    ///
    /// # Errors
    ///
    /// [`StoreError::ImageNotFound`] when the image is not here, [`StoreError::InvalidInput`] for what makes no
    /// sense, and when another snapshot has that id, [`StoreError::Oci`] for a source that fails or lies,
    /// [`StoreError::Import`] for a layer that cannot be used, [`StoreError::Cancelled`], or a failure of the
    /// system. Nothing is left behind then.
    pub fn adopt_snapshot(
        &self,
        adoption: &Adoption,
        source: &dyn Source,
        cancel: &Cancellation,
        progress: &Progress,
    ) -> Result<Adopted, StoreError> {
        adoption.check()?;
        cancel.check().map_err(StoreError::Cancelled)?;
        let chains = adoption.chains();
        let chain = chains.last().map_or("", String::as_str);
        if self.is_here(adoption, chain)? {
            return Ok(Adopted {
                was_here: true,
                ..Adopted::default()
            });
        }
        let mut held = Held::new(self);
        let ground = held.find("looking for what a snapshot stands on", |tx| {
            let ground = ground(tx, adoption, &chains)?;
            let known = ground.known.iter().flatten();
            let layers = ground.layers.iter().chain(known).copied().collect();
            Ok((layers, ground))
        })?;
        let wanted = Wanted {
            store: self,
            source,
            cancel,
            progress,
        };
        let rest = &adoption.layers[ground.prefix..];
        let absent = rest.iter().zip(&ground.known);
        let absent = absent.filter(|(_, known)| known.is_none());
        let absent: Vec<&ChainLayer> = absent.map(|(layer, _)| layer).collect();
        let sizes = absent.iter().map(|layer| layer.blob.size);
        let total = sizes.fold(0, u64::saturating_add);
        progress.begin(ProgressUnit::Bytes, Some(total));
        let injects = injects::bring(&wanted, &adoption.injects)?;
        let brought = missing::bring(&wanted, &absent)?;
        held.join(brought.held);
        let mut adopted = Adopted {
            was_here: false,
            layers: brought.layers.len(),
            bytes: brought.bytes + injects.bytes,
        };
        let mut brought = brought.layers.into_iter();
        let above: Vec<i64> = ground
            .known
            .iter()
            .filter_map(|known| known.or_else(|| brought.next()))
            .collect();
        cancel.check().map_err(StoreError::Cancelled)?;
        adopted.was_here =
            !self.enter_adopted(adoption, chain, &ground, &above, &injects.injects, held)?;
        Ok(adopted)
    }

    /// Whether the snapshot is here with that chain.
    fn is_here(&self, adoption: &Adoption, chain: &str) -> Result<bool, StoreError> {
        let find = |connection: &Connection| Ok(find_chain(connection, &adoption.id)?);
        let here = match self.core().db.read("looking for a snapshot", find)? {
            None => return Ok(false),
            Some(Some(here)) => here,
            Some(None) => self.snapshot_chain(&adoption.id)?.chain,
        };
        if here == chain {
            return Ok(true);
        }
        Err(adoption.is_another())
    }

    /// Makes the rows. Returns `false` when somebody else was quicker.
    fn enter_adopted(
        &self,
        adoption: &Adoption,
        chain: &str,
        ground: &Ground,
        above: &[i64],
        injects: &[Inject],
        held: Held,
    ) -> Result<bool, StoreError> {
        let core = self.core();
        let (row, count, doomed) = core.db.write("adopting a snapshot", |tx| {
            match find_chain(tx, &adoption.id)? {
                Some(Some(here)) if here == chain => {
                    return Ok((None, 0, held.give_back(tx)?));
                }
                Some(_) => return Err(adoption.is_another().into()),
                None => {}
            }
            let (layers, base) = stacked(ground, above);
            let stack = stack::create(tx, layers, ground.host, base, None)?;
            tx.prepare_cached("UPDATE stacks SET version = ?2 WHERE id = ?1")?
                .execute([stack.id, ground.version])?;
            injects::note(tx, stack.id, injects)?;
            let row = insert(tx, adoption, ground, above, stack.id, &core.boot)?;
            let layers = serde_json::to_string(&adoption.layers).unwrap_or_default();
            tx.prepare_cached(
                "INSERT INTO snapshot_chains (snapshot, chain, layers) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![row, chain, layers])?;
            let count = stack.layers.len() - stack.base;
            Ok((Some(row), count, held.give_back(tx)?))
        })?;
        held.given_back();
        if doomed {
            self.add_job(Job::Doomed);
        }
        let Some(row) = row else { return Ok(false) };
        self.add_job(Job::Settle);
        if count >= RUN {
            self.add_job(Job::Flatten(row));
        }
        Ok(true)
    }
}

impl Adoption {
    /// Hash of the image's digest and all diff ids: snapshots that have it in common have the same files.
    pub fn chain(&self) -> String {
        self.chains().pop().unwrap_or_default()
    }

    fn chains(&self) -> Vec<String> {
        let diff_ids = self.layers.iter().map(|layer| &layer.diff_id);
        chains(&self.base_digest, diff_ids)
    }

    fn check(&self) -> Result<(), StoreError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let id = self.id.as_bytes();
        let reason = if id.len() != 32 || !id.iter().copied().all(is_digit) {
            "its id is not that of a snapshot".to_owned()
        } else if self.layers.len() > MAX_LAYERS {
            format!("it has more than {MAX_LAYERS} layers")
        } else if self.injects.len() > MAX_INJECTS {
            format!("it has injects at more than {MAX_INJECTS} places")
        } else if self.own > self.layers.len() {
            "it has fewer layers than its commit added".to_owned()
        } else if self.created.duration_since(UNIX_EPOCH).is_err() {
            "it was made before 1970".to_owned()
        } else {
            return Ok(());
        };
        Err(StoreError::invalid(
            format!("snapshot {:?}", &*self.id),
            reason,
        ))
    }

    fn is_another(&self) -> StoreError {
        StoreError::invalid(
            format!("snapshot {}", self.id),
            "there is one of that id here, with other files",
        )
    }
}

/// The chain of a snapshot, if it is here, and if its chain is known.
pub(super) fn find_chain(
    connection: &Connection,
    id: &SnapshotId,
) -> rusqlite::Result<Option<Option<String>>> {
    connection
        .prepare_cached(
            "SELECT chain FROM snapshots LEFT JOIN snapshot_chains ON snapshot = id WHERE name = ?1",
        )?
        .query_row([id.as_ref()], |row| row.get(0))
        .optional()
}

/// The snapshot with the longest beginning of the chain, or the image, and what else is here.
fn ground(tx: &Transaction<'_>, adoption: &Adoption, chains: &[String]) -> Result<Ground, Failure> {
    let mut found = None;
    for (prefix, chain) in chains.iter().enumerate().rev() {
        let stack: Option<i64> = tx
            .prepare_cached(
                "SELECT stack FROM snapshot_chains JOIN snapshots ON id = snapshot
                 WHERE chain = ?1 LIMIT 1",
            )?
            .query_row([chain], |row| row.get(0))
            .optional()?;
        if let Some(stack) = stack {
            found = Some((prefix, stack, usize::MAX));
            break;
        }
    }
    let missing = || StoreError::ImageNotFound {
        image: adoption.base_digest.clone(),
    };
    let (prefix, stack, most) = match found {
        Some(found) => found,
        // Any stack on this image will do: its own layers are at the bottom.
        None => (
            0,
            stack_of_image(tx, &adoption.base_digest)?.ok_or_else(missing)?,
            0,
        ),
    };
    let version = tx
        .prepare_cached("SELECT version FROM stacks WHERE id = ?1")?
        .query_row([stack], |row| row.get(0))?;
    let stack = stack::load(tx, stack)?.ok_or_else(missing)?;
    let mut layers = stack.layers;
    layers.truncate(most.max(stack.base));
    let rest = adoption.layers[prefix..].iter();
    let known = rest.map(|layer| layer_of(tx, &layer.diff_id));
    Ok(Ground {
        prefix,
        layers,
        host: stack.host,
        base: stack.base,
        version,
        known: known.collect::<rusqlite::Result<_>>()?,
    })
}

/// A stack that begins with an image, which may have lost its name.
fn stack_of_image(tx: &Transaction<'_>, digest: &str) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached(
        "SELECT stacks.id FROM stacks JOIN image_versions ON image_versions.id = version
         WHERE digest = ?1
         ORDER BY EXISTS (SELECT 1 FROM images WHERE images.stack = stacks.id) DESC LIMIT 1",
    )?
    .query_row([digest], |row| row.get(0))
    .optional()
}

/// The layers of the new stack, and how many of them are the image's. A layer that comes twice stays where it comes
/// last: overlayfs refuses one directory twice, and on top it hides all that it hid further down.
fn stacked(ground: &Ground, above: &[i64]) -> (Vec<i64>, usize) {
    let (mut layers, mut base) = (ground.layers.clone(), ground.base);
    for &layer in above {
        if let Some(place) = layers.iter().position(|other| *other == layer) {
            layers.remove(place);
            base -= usize::from(place < base);
        }
        layers.push(layer);
    }
    (layers, base)
}

fn insert(
    tx: &Transaction<'_>,
    adoption: &Adoption,
    ground: &Ground,
    above: &[i64],
    stack: i64,
    boot: &str,
) -> Result<i64, Failure> {
    let parent = adoption.parent.as_deref();
    let image: Option<String> = tx
        .prepare_cached(
            "SELECT name FROM images JOIN stacks ON stacks.id = stack WHERE version = ?1
             ORDER BY name = ?2 DESC LIMIT 1",
        )?
        .query_row(params![ground.version, adoption.image], |row| row.get(0))
        .optional()?;
    let depth: Option<u32> = tx
        .prepare_cached("SELECT depth + 1 FROM snapshots WHERE name = ?1")?
        .query_row([parent], |row| row.get(0))
        .optional()?;
    let since = adoption.created.duration_since(UNIX_EPOCH);
    let created = i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX);
    let own: Vec<String> = above
        .iter()
        .skip(above.len().saturating_sub(adoption.own))
        .map(i64::to_string)
        .collect();
    tx.prepare_cached(
        "INSERT INTO snapshots (name, label, parent, image, created, last_used, depth, stack,
             own_layers, durable, boot)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10)",
    )?
    .execute(params![
        adoption.id.as_ref(),
        adoption.label,
        parent,
        image.as_ref().or(adoption.image.as_ref()),
        created,
        now_micros(),
        depth.unwrap_or(adoption.depth),
        stack,
        format!("[{}]", own.join(",")),
        boot
    ])?;
    Ok(tx.last_insert_rowid())
}
