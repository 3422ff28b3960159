//! Turning the upper directory into a layer, and into a snapshot.

use std::io;
use std::os::fd::AsFd;

use hm_vm_core::SnapshotId;
use rusqlite::{OptionalExtension, Transaction, params};
use rustix::fs::{Mode, OFlags, Stat};

use crate::background::Job;
use crate::background::flatten::RUN;
use crate::db::Failure;
use crate::db::stack::{self, LayerKind, Stack};
use crate::error::{Context, StoreError};
use crate::store::{Core, new_name, now_micros};
use crate::tree::attributes;
use crate::tree::directory::is_empty;
use crate::vm::files::{Origin, Phase, VmFiles, VmState};

/// What a seal makes of the VM's state, once its transaction is committed.
struct Sealed {
    stack: Stack,
    next_layer: i64,
    doomed: bool,
}

impl VmFiles {
    /// Keeps the VM's files as a snapshot. The VM goes on, with a fresh upper directory over it.
    /// Takes the same time whatever the VM wrote: the directory is renamed.
    ///
    /// # Errors
    ///
    /// [`StoreError::VmRemoved`], or a failure of the system: then there is no snapshot, and the
    /// VM is as it was.
    pub fn commit(&self, label: Option<&str>) -> Result<SnapshotId, StoreError> {
        let mut state = self.lock_at_rest()?;
        let core = self.store.core();
        let name = new_name().map_err(|failure| match failure {
            Failure::Store(error) => error,
            Failure::Sql(source) => StoreError::Database {
                doing: "naming a snapshot",
                path: core.layout.database(),
                source,
            },
        })?;
        let row = self.seal(&mut state, |tx, state, stack| {
            insert_snapshot(tx, core, &name, label, state, stack)
        })?;
        state.origin_layers = state.stack.layers.len();
        state.origin.depth += 1;
        state.origin.snapshot = Some(name.clone());
        let above_image = state.stack.layers.len() - state.stack.base;
        drop(state);
        self.store.add_job(Job::Settle);
        if above_image >= RUN {
            self.store.add_job(Job::Flatten(row));
        }
        Ok(SnapshotId::new(name))
    }

    /// Seals what is in the upper directory, if anything is, and runs `record` on the new stack in
    /// the same transaction.
    pub(crate) fn seal<T>(
        &self,
        state: &mut VmState,
        record: impl FnOnce(&Transaction<'_>, &VmState, &Stack) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let core = self.store.core();
        let changed = self.upper_has_changes(state)?;
        let layer = core.layout.layer(state.next_layer);
        let (upper, tree) = (self.upper_path(), layer.join("tree"));
        if changed {
            make_directory(&layer)?;
            core.rename(&upper, &tree)?;
        }
        let sealed = core.db.write("sealing a layer", |tx| {
            let below = current_stack(tx, state)?;
            let sealed = if changed {
                put_on_top(tx, core, state, &below, LayerKind::Commit)?
            } else {
                Sealed {
                    stack: below,
                    next_layer: state.next_layer,
                    doomed: false,
                }
            };
            let value = record(tx, state, &sealed.stack)?;
            let doomed = move_vm(tx, core, self.number, state.stack.id, sealed.stack.id)?;
            Ok((
                value,
                Sealed {
                    doomed: doomed || sealed.doomed,
                    ..sealed
                },
            ))
        });
        match sealed {
            Ok((value, sealed)) => {
                let flattened = sealed.stack.layers.len() < state.stack.layers.len();
                if flattened {
                    state.origin_layers = sealed.stack.layers.len() - usize::from(changed);
                }
                state.stack = sealed.stack;
                state.next_layer = sealed.next_layer;
                if sealed.doomed {
                    self.store.add_job(Job::Doomed);
                }
                if changed {
                    self.refresh_upper(state)?;
                }
                Ok(value)
            }
            Err(error) => {
                if changed && core.rename(&tree, &upper).is_err() {
                    state.phase = Phase::Broken;
                }
                Err(error)
            }
        }
    }

    /// A fresh upper directory after a seal. If it cannot be made, what was sealed stays, and the
    /// VM can only be removed.
    fn refresh_upper(&self, state: &mut VmState) -> Result<(), StoreError> {
        let made = self.make_upper(state);
        if made.is_err() {
            state.phase = Phase::Broken;
        }
        made
    }

    fn upper_has_changes(&self, state: &VmState) -> Result<bool, StoreError> {
        let (upper, top) = (self.upper_path(), self.top_tree(state));
        let look = || -> io::Result<bool> {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let upper = rustix::fs::open(&upper, flags, Mode::empty())?;
            if !is_empty(upper.as_fd())? {
                return Ok(true);
            }
            let top = rustix::fs::open(&top, flags, Mode::empty())?;
            let key = |stat: Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
            Ok(
                key(rustix::fs::fstat(&upper)?) != key(rustix::fs::fstat(&top)?)
                    || attributes::extended(upper.as_fd())? != attributes::extended(top.as_fd())?,
            )
        };
        match look() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.store.core().files.run(look)?
            }
            other => other,
        }
        .context("examining", &upper)
    }
}

/// The stack that the VM stands on. When the snapshot it stands on was flattened meanwhile, and
/// nothing was put on top since, that is the flattened one: it holds the same files.
fn current_stack(tx: &Transaction<'_>, state: &VmState) -> Result<Stack, Failure> {
    let Some(snapshot) = &state.origin.snapshot else {
        return Ok(state.stack.clone());
    };
    if state.stack.layers.len() != state.origin_layers {
        return Ok(state.stack.clone());
    }
    let found: Option<i64> = tx
        .prepare_cached("SELECT stack FROM snapshots WHERE name = ?1")?
        .query_row([snapshot], |row| row.get(0))
        .optional()?;
    match found {
        Some(stack) if stack != state.stack.id => {
            Ok(stack::load(tx, stack)?.unwrap_or_else(|| state.stack.clone()))
        }
        _ => Ok(state.stack.clone()),
    }
}

/// Publishes the layer that was reserved for the VM, and reserves the next.
fn put_on_top(
    tx: &Transaction<'_>,
    core: &Core,
    state: &VmState,
    below: &Stack,
    kind: LayerKind,
) -> Result<Sealed, Failure> {
    stack::publish_layer(tx, state.next_layer, kind)?;
    Ok(Sealed {
        stack: stack::push(tx, below, state.next_layer)?,
        next_layer: stack::reserve_layer(tx, core.session.id, LayerKind::Commit, &core.boot)?,
        doomed: false,
    })
}

/// Puts a VM on another stack, and drops the one it was on if nothing else is. Returns whether any
/// layer was doomed by that.
pub(crate) fn move_vm(
    tx: &Transaction<'_>,
    core: &Core,
    vm: i64,
    from: i64,
    to: i64,
) -> Result<bool, Failure> {
    if from == to {
        return Ok(false);
    }
    tx.prepare_cached("UPDATE vms SET stack = ?2 WHERE id = ?1")?
        .execute([vm, to])?;
    Ok(stack::release(tx, from, core.session.id)?)
}

fn insert_snapshot(
    tx: &Transaction<'_>,
    core: &Core,
    name: &str,
    label: Option<&str>,
    state: &VmState,
    stack: &Stack,
) -> Result<i64, Failure> {
    let Origin {
        image,
        snapshot,
        depth,
    } = &state.origin;
    let sealed = stack.layers.last().filter(|&&top| top == state.next_layer);
    let since = state.stack.layers.iter().skip(state.origin_layers);
    let own: Vec<String> = since.chain(sealed).map(i64::to_string).collect();
    let now = now_micros();
    tx.prepare_cached(
        "INSERT INTO snapshots (name, label, parent, image, created, last_used, depth, stack,
             own_layers, durable, boot)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8, 0, ?9)",
    )?
    .execute(params![
        name,
        label,
        snapshot,
        image,
        now,
        depth + 1,
        stack.id,
        format!("[{}]", own.join(",")),
        core.boot
    ])?;
    Ok(tx.last_insert_rowid())
}

/// A seal that failed before may have left the directory.
fn make_directory(path: &std::path::Path) -> Result<(), StoreError> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context("creating", path),
    }
}
