//! A backend with all that works on it.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hm_vm::store::Store;
use hm_vm::{Cancellation, HmVm, ImageRegistry};

use super::keeper::Keeper;
use crate::app::App;

/// Time for what a daemon still has to remove when the user wants the program to end at once.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// What commands that make VMs work on.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The store. With a daemon, it still has the record of runs.
    pub(crate) store: Store,
    pub(crate) engine: HmVm,
    pub(crate) keeper: Keeper,
    /// Why not another backend.
    pub(crate) notices: Vec<String>,
}

/// What commands that look at snapshots and keys work on.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) store: Store,
    pub(crate) keeper: Keeper,
}

impl Looked {
    /// The keys.
    ///
    /// # Errors
    ///
    /// They cannot be opened.
    pub(crate) fn registry(&self, app: &App) -> anyhow::Result<ImageRegistry> {
        self.keeper.registry(app)
    }
}

impl Keeper {
    /// To be called at the end of a command that made VMs. What is still to be removed in a daemon is waited for when the
    /// backend is dropped; not so when the user has asked twice for the end: then it is left for the next start.
    pub(crate) fn end(&self, cancel: &Cancellation) {
        let Self::Daemon(daemon) = self else { return };
        if !cancel.is_killed() {
            return;
        }
        let (done, told) = mpsc::channel();
        let flushed = daemon.clone();
        let waits = thread::Builder::new().spawn(move || {
            let _gone = done.send(flushed.flush());
            // The program ends without this thread's clone: its drop would wait once more.
            std::mem::forget(flushed);
        });
        if waits.is_ok() && told.recv_timeout(LAST_MOMENT) == Ok(true) {
            return;
        }
        std::mem::forget(daemon.clone());
    }
}
