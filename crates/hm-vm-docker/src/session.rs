//! Who uses a daemon: an owner that lasts, and a session that ends.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::backend::not_yet;
use crate::engine::Engine;
use crate::objects::Identity;

/// One opened backend.
#[derive(Debug)]
pub(crate) struct Session {
    identity: Identity,
    directory: PathBuf,
}

impl Session {
    /// Begins a session of the owner that `state` names.
    pub(crate) fn open(state: Option<&Path>, engine: &Engine) -> Result<Self> {
        let _ = (state, engine);
        not_yet("sessions")
    }

    /// Who this is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Directory for files about this owner's things in this daemon.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}
