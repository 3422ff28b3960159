//! How the backend behaves.

use std::path::PathBuf;

use hm_vm_oci::{CredentialFiles, Platform};

use crate::endpoint::Endpoint;

/// How a [`DockerBackend`](crate::DockerBackend) behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DockerOptions {
    /// Which daemon. `None` looks for one, as `docker` and `podman` do.
    pub endpoint: Option<Endpoint>,
    /// Directory for what identifies this owner: made when it is missing. Backends with one state directory and one
    /// daemon see the same snapshots. `None` is `$XDG_DATA_HOME/hm-vm/docker`.
    pub state: Option<PathBuf>,
    /// What [`create`](hm_vm_core::VmBackend::create) does about images that the daemon does not have.
    pub pull: PullPolicy,
    /// For which system and processor images are. `None` is the daemon's own.
    pub platform: Option<Platform>,
    /// Where names and passwords for registries are. `None` is where `docker login` and `podman login` leave them.
    pub credentials: Option<CredentialFiles>,
}

impl Default for DockerOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            state: None,
            pull: PullPolicy::Missing,
            platform: None,
            credentials: None,
        }
    }
}

/// What to do about an image that the daemon does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Let the daemon pull it.
    #[default]
    Missing,
    /// Fail.
    Never,
}
