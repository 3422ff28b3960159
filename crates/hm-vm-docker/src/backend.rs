//! The backend.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use hm_vm_core::{
    Capabilities, InjectEntry, InjectSource, OutputReport, OutputRequest, PrivateNetwork,
    PrivateNetworkRequest, SnapshotId, Vm, VmBackend, VmConfig,
};

use crate::endpoint::EndpointSearch;
use crate::engine::{Engine, EngineInfo};
use crate::helper::HelperVolume;
use crate::image::ImageCache;
use crate::options::DockerOptions;
use crate::presence::Presence;
use crate::session::Session;

/// Makes VMs from containers of one daemon. Cheap to clone. When the last clone and the last VM are dropped, that waits (ten seconds at
/// most) until what they had in the daemon is removed.
#[derive(Clone, Debug)]
pub struct DockerBackend {
    pub(crate) machine: Arc<Machine>,
}

/// What all VMs of a backend share.
#[derive(Debug)]
pub(crate) struct Machine {
    // Before the engine: whose last handle waits, under the session's lock still.
    pub(crate) presence: Presence,
    pub(crate) engine: Engine,
    pub(crate) session: Session,
    pub(crate) helper: HelperVolume,
    pub(crate) options: DockerOptions,
    pub(crate) images: ImageCache,
}

impl DockerBackend {
    /// A backend on the daemon that `docker` or `podman` would use here: see [`EndpointSearch`]. Reads the environment. Blocks until
    /// the daemon has answered.
    ///
    /// # Errors
    ///
    /// [`hm_vm_core::Error::BackendUnavailable`] when there is none, with all places that were tried.
    pub fn connect() -> Result<Self> {
        Self::open(DockerOptions::default())
    }

    /// A backend as `options` say. Blocks until the daemon has answered. What dead sessions of the same owner
    /// left in the daemon is removed in the background.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect); or the state directory cannot be used.
    pub fn open(options: DockerOptions) -> Result<Self> {
        let endpoint = match &options.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => EndpointSearch::from_environment().find()?,
        };
        let engine = Engine::connect(&endpoint)?;
        let session = Session::open(options.state.as_deref(), &engine)?;
        let machine = Machine {
            helper: HelperVolume::default(),
            presence: Presence::new(&engine, session.identity()),
            engine,
            session,
            options,
            images: ImageCache::default(),
        };
        let backend = Self {
            machine: Arc::new(machine),
        };
        crate::reap::reap_dead(&backend.machine);
        Ok(backend)
    }

    /// What is known of the daemon.
    pub fn engine(&self) -> &EngineInfo {
        self.machine.engine.info()
    }

    /// Directory for files about the snapshots of this owner in this daemon, such as a registry of keys. It exists.
    pub fn state_directory(&self) -> &Path {
        self.machine.session.directory()
    }

    /// Waits until what is being removed is gone, ten seconds at most. Blocks. Returns whether all is done.
    pub fn flush(&self) -> bool {
        self.machine
            .engine
            .flush(std::time::Duration::from_secs(10))
    }
}

#[async_trait]
impl VmBackend for DockerBackend {
    async fn create(&self, image: &str, config: &VmConfig) -> Result<Box<dyn Vm>> {
        crate::vm::create(&self.machine, image, config).await
    }

    async fn restore(&self, snapshot: &SnapshotId, config: &VmConfig) -> Result<Box<dyn Vm>> {
        crate::vm::restore(&self.machine, snapshot, config).await
    }

    async fn snapshot_exists(&self, snapshot: &SnapshotId) -> Result<bool> {
        self.machine.presence.exists(snapshot).await
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<()> {
        crate::snapshot::remove(&self.machine, snapshot).await
    }

    fn name(&self) -> &str {
        self.engine().kind.name()
    }

    fn capabilities(&self) -> Capabilities {
        crate::limits::capabilities(self.machine.engine.info())
    }

    async fn image_digest(&self, image: &str) -> Result<Option<String>> {
        crate::image::digest(&self.machine, image).await.map(Some)
    }

    async fn inject_digest(&self, host_path: &Path) -> Result<Option<String>> {
        self.inject_digest_of(&InjectSource::directory(host_path))
            .await
    }

    async fn inject_digest_of(&self, source: &InjectSource) -> Result<Option<String>> {
        crate::inject::digest_of(&self.machine, source)
            .await
            .map(Some)
    }

    async fn inject_entries(&self, source: &InjectSource) -> Result<Vec<InjectEntry>> {
        crate::inject::entries(&self.machine, source).await
    }

    async fn copy_outputs(
        &self,
        snapshot: &SnapshotId,
        request: &OutputRequest,
    ) -> Result<OutputReport> {
        crate::outputs::copy(&self.machine, snapshot, request).await
    }

    async fn private_network(
        &self,
        request: &PrivateNetworkRequest,
    ) -> Result<Arc<dyn PrivateNetwork>> {
        crate::private_network::make(&self.machine, request).await
    }

    fn notices(&self) -> Vec<String> {
        crate::protections::notices(self.engine())
    }
}
