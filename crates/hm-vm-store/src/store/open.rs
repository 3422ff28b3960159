//! Opening a store.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use hm_vm_sys::UserNamespace;

use crate::background::{Background, Job};
use crate::db::Db;
use crate::error::StoreError;
use crate::files::Files;
use crate::layout::Layout;
use crate::store::{Core, boot, recovery, reserve};

/// A store of images and snapshots. Clones share it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// First, so that it is dropped before the core that its thread uses.
    background: Background,
    core: Arc<Core>,
}

impl Store {
    /// Opens the store in the directory `root`, which is created where it does not exist, and
    /// turned into a store where it is empty. Collects what dead processes left in it.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadState`] when the directory or its content is not ours, not safe, corrupt,
    /// or of a newer program: nothing is changed then. Otherwise a failure of the system.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_in_boot(root, boot::current()?)
    }

    /// As [`open`](Self::open), in a boot of the machine given by its id: for tests of what
    /// happens after a loss of power.
    #[doc(hidden)]
    pub fn open_in_boot(root: &Path, boot: String) -> Result<Self, StoreError> {
        let layout = Layout::open(root)?;
        let begin = || {
            let db = Db::open(&layout)?;
            let (session, recovered) = recovery::begin(&layout, &db, &boot)?;
            Ok((db, session, recovered))
        };
        let (db, session, recovered) = match begin() {
            Err(error) if StoreError::is_no_space(&error) && reserve::give_up(&layout) => begin()?,
            other => other?,
        };
        if recovered.trash.is_empty() {
            reserve::keep(&layout);
        }
        let core = Core {
            layout,
            db,
            session,
            boot,
            files: Files::default(),
            host_prepared: OnceLock::new(),
        };
        let store = Self(Arc::new(Inner {
            background: Background::default(),
            core: Arc::new(core),
        }));
        for trash in recovered.trash {
            store.add_job(Job::Trash(trash));
        }
        if recovered.doomed {
            store.add_job(Job::Doomed);
        }
        if recovered.unsettled {
            store.add_job(Job::SettleEarlier);
        }
        Ok(store)
    }

    /// The store's directory, absolute.
    pub fn root(&self) -> &Path {
        self.core().layout.root()
    }

    /// The user namespace that fits this user, made on first use. An ordinary user's files in the
    /// store are handled in it; VMs run in it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Namespace`] when this machine does not allow user namespaces.
    pub fn user_namespace(&self) -> Result<Arc<UserNamespace>, StoreError> {
        self.core().files.namespace()
    }

    /// Waits until everything that was done through this store before is durable, measured and
    /// removed.
    ///
    /// # Errors
    ///
    /// The first failure of background work since the last call.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.0.background.flush(self.core())
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    pub(crate) fn add_job(&self, job: Job) {
        self.0.background.add(self.core(), job);
    }
}
