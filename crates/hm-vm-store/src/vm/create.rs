//! Making a VM's files.

use std::sync::atomic::AtomicBool;

use hm_vm_core::SnapshotId;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::background::Job;
use crate::background::flatten::{HARD_LIMIT, flatten_snapshot};
use crate::db::Failure;
use crate::db::stack::{self, LayerKind, Stack};
use crate::error::{Context, StoreError};
use crate::store::image_defaults::{ImageDefaults, config_of_stack};
use crate::store::{Core, Store, image_rows, now_micros};
use crate::vm::files::{Origin, VmFiles, VmState};

/// What a VM starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base<'a> {
    /// An image, by its name.
    Image(&'a str),
    /// A snapshot.
    Snapshot(&'a SnapshotId),
}

impl Store {
    /// Makes the files of a new VM. Its layers stay as long as it does, whatever is removed.
    ///
    /// # Errors
    ///
    /// [`StoreError::ImageNotFound`], [`StoreError::SnapshotNotFound`], or a failure of the
    /// system; nothing is left behind then.
    pub fn new_vm(&self, base: Base<'_>) -> Result<VmFiles, StoreError> {
        if let Base::Image(name) = base {
            self.prepare_image(name)?;
        }
        let core = self.core();
        let never = AtomicBool::new(false);
        let (id, state, config) = loop {
            let found = core.db.write("making a VM", |tx| {
                let (stack, origin) = match base {
                    Base::Image(name) => image_stack(tx, name)?,
                    Base::Snapshot(snapshot) => snapshot_stack(tx, snapshot)?,
                };
                insert_vm(tx, core, stack, origin)
            })?;
            match found {
                Found::Vm(id, state, config) => break (id, state, config),
                // The background did not come to it, in a row of short-lived processes.
                Found::TooLong(snapshot) => {
                    if flatten_snapshot(core, snapshot, &never)? {
                        self.add_job(Job::Doomed);
                    }
                }
            }
        };
        let defaults = ImageDefaults::of_stored(config.as_deref());
        let vm = VmFiles::new(self.clone(), id, state, defaults);
        let directory = core.layout.vm(id);
        std::fs::create_dir(&directory).context("creating", &directory)?;
        let work = directory.join("work");
        std::fs::create_dir(&work).context("creating", &work)?;
        vm.make_upper(&vm.lock())?;
        Ok(vm)
    }
}

/// What a base turned out to be.
enum Found {
    /// A VM, and the configuration of its image.
    Vm(i64, VmState, Option<String>),
    /// A snapshot, by its row, with a chain to be flattened first.
    TooLong(i64),
}

fn insert_vm(
    tx: &Transaction<'_>,
    core: &Core,
    stack: Stack,
    origin: Origin,
) -> Result<Found, Failure> {
    if let Some(snapshot) = &origin.snapshot
        && stack.layers.len() - stack.base > HARD_LIMIT
    {
        let row = tx
            .prepare_cached("SELECT id FROM snapshots WHERE name = ?1")?
            .query_row([snapshot], |row| row.get(0))?;
        return Ok(Found::TooLong(row));
    }
    let next_layer = stack::reserve_layer(tx, core.session.id, LayerKind::Commit, &core.boot)?;
    tx.prepare_cached("INSERT INTO vms (session, stack) VALUES (?1, ?2)")?
        .execute([core.session.id, stack.id])?;
    let id = tx.last_insert_rowid();
    let config = config_of_stack(tx, stack.id)?;
    Ok(Found::Vm(
        id,
        VmState::new(stack, origin, next_layer),
        config,
    ))
}

fn image_stack(tx: &Transaction<'_>, name: &str) -> Result<(Stack, Origin), Failure> {
    let missing = || StoreError::ImageNotFound {
        image: name.to_owned(),
    };
    let (name, stack) = image_rows::stack(tx, name)?.ok_or_else(missing)?;
    let origin = Origin {
        image: Some(name),
        snapshot: None,
        depth: 0,
    };
    Ok((stack::load(tx, stack)?.ok_or_else(missing)?, origin))
}

fn snapshot_stack(tx: &Transaction<'_>, snapshot: &SnapshotId) -> Result<(Stack, Origin), Failure> {
    let found = tx
        .prepare_cached(
            "UPDATE snapshots SET last_used = ?2 WHERE name = ?1
             RETURNING stack, image, depth",
        )?
        .query_row(params![snapshot.as_ref(), now_micros()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let missing = || StoreError::SnapshotNotFound {
        snapshot: snapshot.clone(),
    };
    let (stack, image, depth): (i64, _, _) = found.ok_or_else(missing)?;
    let origin = Origin {
        image,
        snapshot: Some(snapshot.to_string()),
        depth,
    };
    Ok((stack::load(tx, stack)?.ok_or_else(missing)?, origin))
}
