//! Bringing a host directory into a VM, as a layer of its own.
//!
//! The layer is known by all that its content depends on, so that the same tree brought to the
//! same place is written once, whichever VM needs it. Layers that no VM or snapshot has are kept
//! for a while, for the next run.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hm_vm_core::{InjectSource, ProgressUnit};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::background::Job;
use crate::db::Failure;
use crate::db::stack::{self, LayerKind, Stack};
use crate::error::StoreError;
use crate::files::Files;
use crate::inject::{
    self, DirectoryAttributes, GuestEntry, GuestView, LayerReport, LayerRequest, LinkSource, Tree,
};
use crate::store::{Core, Store, now_micros};
use crate::tree::directory::file_type;
use crate::view::guest_error;
use crate::view::merged::{Merged, Node};
use crate::view::open_stack;
use crate::view::resolve::{look_up, resolve};
use crate::vm::files::{InjectReport, VmFiles, VmState};
use crate::vm::seal::move_vm;

/// How many inject layers that nothing uses are kept.
const KEPT: usize = 16;

impl VmFiles {
    /// Copies the contents of the host directory `host` into the guest directory `guest`, which is
    /// created where it does not exist; symbolic links on the way are followed inside the guest.
    /// What the last inject to the same place brought, and the directory no longer has, is
    /// removed; what the guest made there stays. What is in the upper directory is sealed first.
    /// A tree that was injected to the same place before is not copied again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Inject`] or [`StoreError::InvalidInput`] for a host or guest path that cannot
    /// be used, [`StoreError::VmRemoved`], or a failure of the system. Nothing is injected then.
    pub fn inject(&self, host: &Path, guest: &str) -> Result<InjectReport, StoreError> {
        self.inject_from(&InjectSource::directory(host), guest)
    }

    /// As [`inject`](Self::inject), for a part of a directory. It replaces what the last inject
    /// brought to the same place, with whatever patterns.
    ///
    /// # Errors
    ///
    /// As [`inject`](Self::inject), and for a pattern that makes no sense.
    pub fn inject_from(
        &self,
        source: &InjectSource,
        guest: &str,
    ) -> Result<InjectReport, StoreError> {
        let mut state = self.lock_at_rest()?;
        if !guest.starts_with('/') || guest.contains('\0') {
            return Err(StoreError::invalid(
                format!("guest directory {guest:?}"),
                "it is not an absolute path",
            ));
        }
        let core = self.store.core();
        self.progress.begin(ProgressUnit::Files, None);
        let tree = self.store.scan(source)?;
        self.seal(&mut state, |_, _, _| Ok(()))?;
        let view = GuestFiles {
            files: &core.files,
            tree: open_stack(core, &state.stack)?,
        };
        let guest_dir = view.resolve(Path::new(guest))?;
        let place = guest_dir.display().to_string();
        let replaced = replaced(core, state.stack.id, &place)?;
        let mut request = LayerRequest {
            host_dir: &source.directory,
            dest: Path::new(""),
            guest_dir: &guest_dir,
            guest: &view,
            replaces: replaced.as_ref(),
            link_from: None,
        };
        let identity = inject::layer_identity(&tree, &request)?;
        let mut report = InjectReport {
            digest: tree.digest().to_owned(),
            entries: tree.len() as u64,
            notices: tree.notices().to_vec(),
            ..InjectReport::default()
        };
        if self.put_known(&mut state, &identity, &place)? {
            report.reused = true;
            self.progress.begin(ProgressUnit::Files, Some(0));
            return Ok(report);
        }
        let linked = LinkLease::take(&self.store, &place)?;
        let linked_tree = linked.as_ref().map(|lease| lease.path.clone());
        if let (Some(lease), Some(layer)) = (&linked, &linked_tree) {
            request.link_from = Some(LinkSource {
                tree: &lease.tree,
                layer,
                guest_dir: &guest_dir,
            });
        }
        let written = self.write(&mut state, &tree, request, &identity, &place)?;
        report.files_copied = written.files_copied;
        report.files_linked = written.files_linked;
        report.bytes_copied = written.bytes_copied;
        Ok(report)
    }

    /// Puts an inject layer that exists already on top. Returns whether there was one.
    fn put_known(
        &self,
        state: &mut VmState,
        identity: &str,
        place: &str,
    ) -> Result<bool, StoreError> {
        let core = self.store.core();
        let put = core.db.write("injecting a known tree", |tx| {
            let known: Option<(i64, i64)> = tx
                .prepare_cached(
                    "UPDATE injects SET last_used = ?2 WHERE request = ?1 AND layer IS NOT NULL
                     RETURNING id, layer",
                )?
                .query_row(params![identity, now_micros()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let Some((inject, layer)) = known else {
                return Ok(None);
            };
            let (stack, doomed) = put_on_top(tx, core, self.number, state, layer)?;
            note_inject(tx, stack.id, place, inject)?;
            Ok(Some((stack, layer, doomed)))
        })?;
        let Some((stack, layer, doomed)) = put else {
            return Ok(false);
        };
        take_stack(state, stack, layer);
        if doomed {
            self.store.add_job(Job::Doomed);
        }
        Ok(true)
    }

    /// Writes a new inject layer and puts it on top.
    fn write(
        &self,
        state: &mut VmState,
        tree: &Tree,
        request: LayerRequest<'_>,
        identity: &str,
        place: &str,
    ) -> Result<LayerReport, StoreError> {
        let core = self.store.core();
        let new = core.new_tree()?;
        let request = LayerRequest {
            dest: new.path(),
            ..request
        };
        let report = inject::write_layer_watched(tree, &request, &self.progress)?;
        let manifest = tree.encode();
        let pending = core.adopt(new, LayerKind::Inject)?;
        let layer = pending.layer();
        let (stack, doomed) = core.db.write("injecting a tree", |tx| {
            stack::publish_layer(tx, layer, LayerKind::Inject)?;
            let (stack, moved) = put_on_top(tx, core, self.number, state, layer)?;
            let old: Option<i64> = tx
                .prepare_cached("SELECT layer FROM injects WHERE request = ?1")?
                .query_row([identity], |row| row.get(0))
                .optional()?
                .flatten();
            let inject: i64 = tx
                .prepare_cached(
                    "INSERT INTO injects (request, place, digest, manifest, layer, last_used)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (request) DO UPDATE SET layer = excluded.layer,
                         last_used = excluded.last_used
                     RETURNING id",
                )?
                .query_row(
                    params![
                        identity,
                        place,
                        tree.digest(),
                        manifest,
                        layer,
                        now_micros()
                    ],
                    |row| row.get(0),
                )?;
            note_inject(tx, stack.id, place, inject)?;
            let mut doomed = moved;
            if let Some(old) = old {
                doomed |= stack::doom_if_unused(tx, old, core.session.id, true)?;
            }
            doomed |= forget_old_injects(tx, core.session.id, KEPT)?;
            Ok((stack, doomed))
        })?;
        pending.published();
        take_stack(state, stack, layer);
        self.store.add_job(Job::Settle);
        if doomed {
            self.store.add_job(Job::Doomed);
        }
        Ok(report)
    }
}

/// Puts the VM on a stack with `layer` on top. If the layer is in the stack already it moves up:
/// overlayfs refuses one directory twice, and on top it hides all that it hid further down.
fn put_on_top(
    tx: &Transaction<'_>,
    core: &Core,
    vm: i64,
    state: &VmState,
    layer: i64,
) -> Result<(Stack, bool), Failure> {
    let old = &state.stack;
    let mut layers: Vec<i64> = old.layers.iter().copied().filter(|l| *l != layer).collect();
    layers.push(layer);
    let stack = stack::create(tx, layers, old.host, old.base, Some(old.id))?;
    let doomed = move_vm(tx, core, vm, old.id, stack.id)?;
    Ok((stack, doomed))
}

/// The VM's state after [`put_on_top`].
fn take_stack(state: &mut VmState, stack: Stack, layer: i64) {
    if let Some(at) = state.stack.layers.iter().position(|l| *l == layer)
        && at < state.origin_layers
    {
        state.origin_layers -= 1;
    }
    state.stack = stack;
}

fn note_inject(tx: &Transaction<'_>, stack: i64, place: &str, inject: i64) -> Result<(), Failure> {
    tx.prepare_cached(
        "INSERT INTO stack_injects (stack, path, inject) VALUES (?1, ?2, ?3)
         ON CONFLICT (stack, path) DO UPDATE SET inject = excluded.inject",
    )?
    .execute(params![stack, place, inject])?;
    Ok(())
}

/// Dooms inject layers that nothing uses but the newest ones, and drops what is known of trees
/// that no lineage has.
pub(crate) fn forget_old_injects(
    tx: &Transaction<'_>,
    session: i64,
    keep: usize,
) -> Result<bool, Failure> {
    let old: Vec<i64> = tx
        .prepare_cached(
            "SELECT layer FROM injects WHERE layer IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM stack_layers WHERE layer = injects.layer)
             ORDER BY last_used DESC LIMIT -1 OFFSET ?1",
        )?
        .query_map([keep], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut doomed = false;
    for layer in old {
        doomed |= stack::doom_if_unused(tx, layer, session, false)?;
    }
    tx.prepare_cached(
        "DELETE FROM injects WHERE layer IS NULL
         AND NOT EXISTS (SELECT 1 FROM stack_injects WHERE inject = injects.id)",
    )?
    .execute([])?;
    Ok(doomed)
}

/// What the lineage's last inject at a place brought.
fn replaced(core: &Core, stack: i64, place: &str) -> Result<Option<Tree>, StoreError> {
    let manifest: Option<Vec<u8>> = core.db.read("reading an earlier inject", |connection| {
        Ok(connection
            .prepare_cached(
                "SELECT manifest FROM stack_injects
                 JOIN injects ON injects.id = inject WHERE stack = ?1 AND path = ?2",
            )?
            .query_row(params![stack, place], |row| row.get(0))
            .optional()?)
    })?;
    Ok(manifest
        .map(|manifest| Tree::decode(&manifest))
        .transpose()?)
}

/// Holds an inject layer, of whatever lineage, while files are linked from it.
struct LinkLease {
    store: Store,
    stack: i64,
    lease: i64,
    tree: Tree,
    path: PathBuf,
}

impl LinkLease {
    /// The newest layer for the same place.
    fn take(store: &Store, place: &str) -> Result<Option<Self>, StoreError> {
        let core = store.core();
        let taken = core.db.write("leasing an inject layer", |tx| {
            let found: Option<(i64, Vec<u8>)> = tx
                .prepare_cached(
                    "SELECT layer, manifest FROM injects WHERE place = ?1 AND layer IS NOT NULL
                     ORDER BY last_used DESC LIMIT 1",
                )?
                .query_row([place], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((layer, manifest)) = found else {
                return Ok(None);
            };
            let stack = stack::create(tx, vec![layer], false, 0, None)?;
            tx.prepare_cached("INSERT INTO leases (session, stack) VALUES (?1, ?2)")?
                .execute([core.session.id, stack.id])?;
            Ok(Some((stack.id, tx.last_insert_rowid(), layer, manifest)))
        })?;
        let Some((stack, lease, layer, manifest)) = taken else {
            return Ok(None);
        };
        let mut lease = Self {
            store: store.clone(),
            stack,
            lease,
            tree: Tree::default(),
            path: core.layout.layer_tree(layer),
        };
        lease.tree = Tree::decode(&manifest)?;
        Ok(Some(lease))
    }
}

impl Drop for LinkLease {
    fn drop(&mut self) {
        crate::view::release_lease(&self.store, self.lease, self.stack);
    }
}

/// The VM's files below a new inject layer.
struct GuestFiles<'a> {
    files: &'a Files,
    tree: Merged,
}

impl GuestFiles<'_> {
    fn resolve(&self, guest: &Path) -> Result<PathBuf, StoreError> {
        let found = self
            .look(|| resolve(&self.tree, guest.as_os_str().as_bytes(), true))
            .map_err(|error| guest_error(guest, error))?;
        if let Some(Node::Leaf(_)) = found.node {
            return Err(StoreError::invalid(
                format!("guest directory {guest:?}"),
                "it is not a directory",
            ));
        }
        let mut absolute = vec![b'/'];
        absolute.extend_from_slice(&found.path);
        Ok(OsString::from_vec(absolute).into())
    }

    /// Looks as the user, and where that is not enough, as root of the namespace.
    fn look<T: Send>(&self, look: impl Fn() -> io::Result<T> + Send + Sync) -> io::Result<T> {
        match look() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.files.run(&look).map_err(io::Error::other)?
            }
            other => other,
        }
    }
}

impl GuestView for GuestFiles<'_> {
    fn entry(&self, path: &Path) -> io::Result<Option<GuestEntry>> {
        self.look(|| {
            let Some(node) = look_up(&self.tree, path.as_os_str().as_bytes())? else {
                return Ok(None);
            };
            let found = self.tree.stat(&node)?;
            Ok(Some(match node {
                Node::Directory(_) => GuestEntry::Directory(DirectoryAttributes {
                    mode: found.st_mode & 0o7777,
                    uid: found.st_uid,
                    gid: found.st_gid,
                }),
                Node::Leaf(_) if file_type(&found) == rustix::fs::FileType::Symlink => {
                    GuestEntry::Symlink
                }
                Node::Leaf(_) => GuestEntry::Other,
            }))
        })
    }

    fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.look(|| {
            let node = look_up(&self.tree, path.as_os_str().as_bytes())?;
            let Some(Node::Directory(directory)) = node else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            let entries = self.tree.open_directory(&directory)?.entries()?;
            Ok(entries
                .into_keys()
                .map(|name| OsStr::from_bytes(name.to_bytes()).to_owned())
                .collect())
        })
    }
}
