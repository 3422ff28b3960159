//! The directories of a VM.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hm_vm_core::Progress;
use rustix::fs::{Mode, OFlags};

use crate::background::{Job, remove_trash};
use crate::db::stack::{self, Stack};
use crate::error::{Context, StoreError};
use crate::store::{ImageDefaults, Store};
use crate::tree::attributes;

/// One lower layer of a VM's overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lower {
    /// A directory, relative to the store's root.
    Layer(PathBuf),
    /// The machine's own root directory.
    HostRoot,
}

/// What an inject did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InjectReport {
    /// Digest of the injected tree.
    pub digest: String,
    /// Number of entries in the injected tree.
    pub entries: u64,
    /// Whether an earlier inject's layer was used again, so that nothing was copied.
    pub reused: bool,
    /// Files whose content was copied or cloned.
    pub files_copied: u64,
    /// Files shared with an earlier inject by hard links.
    pub files_linked: u64,
    /// Bytes of the copied files.
    pub bytes_copied: u64,
    /// Things that the user should know.
    pub notices: Vec<String>,
}

/// Where a VM comes from; after a commit, that snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) image: Option<String>,
    pub(crate) snapshot: Option<String>,
    pub(crate) depth: u32,
}

#[derive(Debug)]
pub(crate) struct VmState {
    pub(crate) stack: Stack,
    /// How many layers, from the bottom, the origin has. Those above are not in a snapshot yet.
    pub(crate) origin_layers: usize,
    pub(crate) origin: Origin,
    /// The reserved number under which the upper directory will be sealed.
    pub(crate) next_layer: i64,
    pub(crate) phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    AtRest,
    /// The upper directory could not be made; the VM can only be removed.
    Broken,
    Removed,
}

impl VmState {
    pub(crate) fn new(stack: Stack, origin: Origin, next_layer: i64) -> Self {
        Self {
            origin_layers: stack.layers.len(),
            stack,
            origin,
            next_layer,
            phase: Phase::AtRest,
        }
    }
}

/// The files of one VM. Dropping it removes them.
#[derive(Debug)]
pub struct VmFiles {
    pub(crate) store: Store,
    pub(crate) number: i64,
    name: String,
    pub(crate) progress: Progress,
    defaults: ImageDefaults,
    pub(crate) state: Mutex<VmState>,
}

impl VmFiles {
    pub(crate) fn new(store: Store, number: i64, state: VmState, defaults: ImageDefaults) -> Self {
        Self {
            store,
            number,
            name: number.to_string(),
            progress: Progress::new(),
            defaults,
            state: Mutex::new(state),
        }
    }

    /// The VM's id: unique in the store, for ever.
    pub fn id(&self) -> &str {
        &self.name
    }

    /// What commands get that ask for nothing else: what the image says that the VM's lineage began with.
    pub fn defaults(&self) -> &ImageDefaults {
        &self.defaults
    }

    /// Where injects count the files that they bring, while they do.
    pub fn inject_progress(&self) -> &Progress {
        &self.progress
    }

    /// The layers to mount below the upper directory, topmost first. An `inject` or `commit`
    /// changes them.
    pub fn lowers(&self) -> Vec<Lower> {
        let state = self.lock();
        let layers = state.stack.layers.iter().rev();
        let mut lowers: Vec<Lower> = layers
            .map(|layer| Lower::Layer(format!("layers/{layer}/tree").into()))
            .collect();
        if state.stack.host {
            lowers.push(Lower::HostRoot);
        }
        lowers
    }

    /// The writable directory, relative to the store's root.
    pub fn upper(&self) -> PathBuf {
        format!("vms/{}/upper", self.number).into()
    }

    /// overlayfs's work directory, relative to the store's root.
    pub fn work(&self) -> PathBuf {
        format!("vms/{}/work", self.number).into()
    }

    /// Removes the VM; its files go in the background. Nothing may have
    /// the directories mounted. A second call does nothing.
    ///
    /// # Errors
    ///
    /// A failure of the system. The rest is removed at the latest when the store is opened after
    /// this process has ended.
    pub fn remove(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.phase == Phase::Removed {
            return Ok(());
        }
        state.phase = Phase::Removed;
        let (stack, next_layer) = (state.stack.id, state.next_layer);
        drop(state);
        let core = self.store.core();
        let trash = core.discard(&core.layout.vm(self.number))?;
        // A seal that failed may have left a directory under the reserved number.
        let _ = std::fs::remove_dir(core.layout.layer(next_layer));
        let forget = || {
            core.db.write("removing a VM", |tx| {
                tx.prepare_cached("DELETE FROM vms WHERE id = ?1")?
                    .execute([self.number])?;
                tx.prepare_cached("DELETE FROM layers WHERE id = ?1 AND state = 0")?
                    .execute([next_layer])?;
                Ok(stack::release(tx, stack, core.session.id)?)
            })
        };
        let doomed = match (forget(), &trash) {
            // The VM filled the disk: its files make room for the rows.
            (Err(error), Some(trash)) if error.is_no_space() => {
                remove_trash(core, trash, &AtomicBool::new(false))?;
                forget()?
            }
            (other, _) => other?,
        };
        // Not here: a directory costs the file system more to remove than to make.
        if let Some(trash) = trash {
            self.store.add_job(Job::Trash(trash));
        }
        if doomed {
            self.store.add_job(Job::Doomed);
        }
        Ok(())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, VmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, of a VM that can still be worked with.
    pub(crate) fn lock_at_rest(&self) -> Result<MutexGuard<'_, VmState>, StoreError> {
        let state = self.lock();
        if state.phase == Phase::AtRest {
            Ok(state)
        } else {
            Err(StoreError::VmRemoved {
                vm: self.name.clone(),
            })
        }
    }

    pub(crate) fn upper_path(&self) -> PathBuf {
        self.store.core().layout.vm(self.number).join("upper")
    }

    /// Makes an empty upper directory. The root of an overlay shows the attributes of the upper
    /// directory, so that it gets those of the topmost layer.
    pub(crate) fn make_upper(&self, state: &VmState) -> Result<(), StoreError> {
        let upper = self.upper_path();
        std::fs::create_dir(&upper).context("creating", &upper)?;
        let top = self.top_tree(state);
        let copy = || copy_attributes(&top, &upper);
        let copied = match copy() {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                self.store.core().files.run(copy)?
            }
            other => other,
        };
        copied.context("setting attributes of", &upper)
    }

    /// Where the attributes of the merged root come from when the upper directory is fresh.
    pub(crate) fn top_tree(&self, state: &VmState) -> PathBuf {
        match state.stack.layers.last() {
            Some(&layer) => self.store.core().layout.layer_tree(layer),
            None => PathBuf::from("/"),
        }
    }
}

impl Drop for VmFiles {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(
                vm = self.name,
                error = &error as &dyn std::error::Error,
                "the files of a VM are left for a later session"
            );
        }
    }
}

fn copy_attributes(from: &Path, to: &Path) -> std::io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let from = rustix::fs::open(from, flags, Mode::empty())?;
    let to = rustix::fs::open(to, flags, Mode::empty())?;
    Ok(attributes::copy(from.as_fd(), to.as_fd())?)
}
