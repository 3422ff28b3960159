//! As whom files of layers are handled.
//!
//! Root does it directly. The layers of an ordinary user hold files of its subordinate users as
//! well, which it may touch only as root of its user namespace.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hm_vm_sys::UserNamespace;

use crate::error::StoreError;

/// Held while a namespace is made. One at a time in the whole process: each is made with a helper
/// process that inherits the pipes of the others, and would keep them waiting.
static MAKING: Mutex<()> = Mutex::new(());

/// The way to handle files of layers.
#[derive(Debug, Default)]
pub(crate) struct Files {
    namespace: OnceLock<Arc<UserNamespace>>,
}

impl Files {
    /// The user namespace, made on first use.
    pub(crate) fn namespace(&self) -> Result<Arc<UserNamespace>, StoreError> {
        if let Some(namespace) = self.namespace.get() {
            return Ok(Arc::clone(namespace));
        }
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(namespace) = self.namespace.get() {
            return Ok(Arc::clone(namespace));
        }
        let made =
            UserNamespace::for_current_user().map_err(|source| StoreError::Namespace { source })?;
        Ok(Arc::clone(self.namespace.get_or_init(|| Arc::new(made))))
    }

    /// Runs file system work with rights over all files of layers. The work must not use the
    /// database.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, StoreError> {
        if rustix::process::geteuid().is_root() {
            return Ok(work());
        }
        self.namespace()?
            .run(work)
            .map_err(|source| StoreError::Namespace { source })
    }
}
