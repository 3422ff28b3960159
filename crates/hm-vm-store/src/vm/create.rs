//! Making a VM's files.

use hm_vm_core::SnapshotId;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::db::Failure;
use crate::db::stack::{self, LayerKind, Stack};
use crate::error::{Context, StoreError};
use crate::store::{Store, now_micros};
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
        let core = self.core();
        let (id, state) = core.db.write("making a VM", |tx| {
            let (stack, origin) = match base {
                Base::Image(name) => image_stack(tx, name)?,
                Base::Snapshot(snapshot) => snapshot_stack(tx, snapshot)?,
            };
            let next_layer =
                stack::reserve_layer(tx, core.session.id, LayerKind::Commit, &core.boot)?;
            tx.prepare_cached("INSERT INTO vms (session, stack) VALUES (?1, ?2)")?
                .execute([core.session.id, stack.id])?;
            let id = tx.last_insert_rowid();
            Ok((id, VmState::new(stack, origin, next_layer)))
        })?;
        let vm = VmFiles::new(self.clone(), id, state);
        let directory = core.layout.vm(id);
        std::fs::create_dir(&directory).context("creating", &directory)?;
        let work = directory.join("work");
        std::fs::create_dir(&work).context("creating", &work)?;
        vm.make_upper(&vm.lock())?;
        Ok(vm)
    }
}

fn image_stack(tx: &Transaction<'_>, name: &str) -> Result<(Stack, Origin), Failure> {
    let stack: Option<i64> = tx
        .prepare_cached("SELECT stack FROM images WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    let stack = match stack {
        Some(stack) => stack::load(tx, stack)?,
        None => None,
    };
    let missing = || StoreError::ImageNotFound {
        image: name.to_owned(),
    };
    let origin = Origin {
        image: Some(name.to_owned()),
        snapshot: None,
        depth: 0,
    };
    Ok((stack.ok_or_else(missing)?, origin))
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
