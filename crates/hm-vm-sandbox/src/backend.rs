//! The backend.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use async_trait::async_trait;
use hm_vm_core::{
    Capabilities, Error, InjectEntry, InjectSource, Limit, NetworkPolicy, OutputReport,
    OutputRequest, PrivateNetwork, PrivateNetworkRequest, Protection, SnapshotId, Vm, VmBackend,
    VmConfig,
};
use hm_vm_store::{Base, Lower, Store, VmFiles};
use hm_vm_sys::UserNamespace;
use hm_vm_sys::userns::Mapping;

use crate::error::contract;
use crate::files;
use crate::limits::LimitSupport;
use crate::plan::HostTree;
use crate::private_network::SandboxNetwork;
use crate::vm::SandboxVm;

/// How the backend behaves. Nothing to choose yet: a struct, so that choices can be added.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SandboxOptions {}

/// Makes VMs from Linux namespaces and overlay mounts over a [`Store`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SandboxBackend {
    machine: Arc<Machine>,
}

/// What all VMs of a backend share.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) store: Store,
    /// Root of the machine: layers keep the image's own owners, and mounts translate them.
    pub(crate) translate_owners: bool,
    pub(crate) limits: LimitSupport,
    places: OnceLock<()>,
    /// For VMs that go without the translation.
    identity: OnceLock<Arc<UserNamespace>>,
    shown: OnceLock<Vec<files::Shown>>,
}

impl SandboxBackend {
    /// A backend on this store. Does next to nothing: namespaces and mount points are made when
    /// the first VM needs them.
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn open(store: Store, options: SandboxOptions) -> Result<Self> {
        let SandboxOptions {} = options;
        Ok(Self {
            machine: Arc::new(Machine {
                limits: LimitSupport::new(&store),
                store,
                translate_owners: rustix::process::geteuid().is_root(),
                places: OnceLock::new(),
                identity: OnceLock::new(),
                shown: OnceLock::new(),
            }),
        })
    }

    /// What killed processes left on the machine and could not be removed now. The store has its
    /// own list.
    pub fn leftovers(&self) -> Vec<String> {
        self.machine.limits.leftovers()
    }

    /// The store that holds its images and snapshots.
    pub fn store(&self) -> &Store {
        &self.machine.store
    }

    fn vm(&self, base: Base<'_>, config: &VmConfig) -> Result<Box<dyn Vm>> {
        let machine = &self.machine;
        // Looking at what the machine can do takes time, and most VMs ask for nothing.
        if *config != VmConfig::default() {
            self.capabilities()
                .check(config, |limit| machine.limits.why_not(limit))?;
        }
        machine.prepare()?;
        let files = machine.store.new_vm(base).map_err(contract)?;
        Ok(Box::new(SandboxVm::new(
            Arc::clone(machine),
            files,
            config.clone(),
        )?))
    }
}

impl Machine {
    pub(crate) fn prepare(&self) -> Result<()> {
        if self.places.get().is_none() {
            files::prepare(self.store.root())?;
            self.user_namespace()?;
            let _ = self.places.set(());
        }
        Ok(())
    }

    pub(crate) fn user_namespace(&self) -> Result<Arc<UserNamespace>> {
        self.store.user_namespace().map_err(|error| {
            Error::BackendUnavailable {
                backend: "sandbox".into(),
                reason: format!("{error}; `hmvm doctor` says why, and what to do"),
            }
            .into()
        })
    }

    /// Whether owners are translated for this VM.
    pub(crate) fn translates(&self, config: &VmConfig) -> bool {
        self.translate_owners && !config.allow_weaker.contains(&Protection::IdMap)
    }

    /// The user namespace that this VM runs in.
    pub(crate) fn namespace_for(&self, config: &VmConfig) -> Result<Arc<UserNamespace>> {
        if self.translates(config) || !self.translate_owners {
            return self.user_namespace();
        }
        if let Some(identity) = self.identity.get() {
            return Ok(Arc::clone(identity));
        }
        let made = Arc::new(UserNamespace::identity()?);
        Ok(Arc::clone(self.identity.get_or_init(|| made)))
    }

    /// The lower directories of a VM, topmost first, and how the host's files come in.
    pub(crate) fn lowers(
        &self,
        files: &VmFiles,
        config: &VmConfig,
    ) -> Result<(HostTree, Vec<PathBuf>)> {
        let mut host = HostTree::Hidden;
        let mut lowers = Vec::new();
        for lower in files.lowers() {
            match lower {
                Lower::Layer(path) => lowers.push(path),
                Lower::HostRoot if self.translates(config) && !root_is_an_overlay() => {
                    lowers.push(files::HOST_VIEW.into());
                    host = HostTree::Layer(self.submounts()?);
                }
                Lower::HostRoot => {
                    lowers.push(files::HOST_SKELETON.into());
                    host = HostTree::Shown(self.shown()?.to_vec());
                }
            }
        }
        lowers.push(files::SKELETON.into());
        Ok((host, lowers))
    }

    fn submounts(&self) -> Result<Vec<PathBuf>> {
        let mounts = hm_vm_store::host::submounts().context("reading the host's mounts")?;
        Ok(mounts.into_iter().map(|mount| mount.path).collect())
    }

    fn shown(&self) -> Result<&[files::Shown]> {
        if let Some(shown) = self.shown.get() {
            return Ok(shown);
        }
        let shown = files::prepare_host(self.store.root())?;
        Ok(self.shown.get_or_init(|| shown))
    }
}

/// As in a container. The kernel stacks no more than two overlays.
fn root_is_an_overlay() -> bool {
    /// `OVERLAYFS_SUPER_MAGIC`.
    const OVERLAY: i64 = 0x794c_7630;
    rustix::fs::statfs("/").is_ok_and(|found| found.f_type == OVERLAY)
}

#[async_trait]
impl VmBackend for SandboxBackend {
    async fn create(&self, image: &str, config: &VmConfig) -> Result<Box<dyn Vm>> {
        self.vm(Base::Image(image), config)
    }

    async fn restore(&self, snapshot: &SnapshotId, config: &VmConfig) -> Result<Box<dyn Vm>> {
        self.vm(Base::Snapshot(snapshot), config)
    }

    async fn snapshot_exists(&self, snapshot: &SnapshotId) -> Result<bool> {
        self.machine
            .store
            .snapshot_exists(snapshot)
            .map_err(contract)
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<()> {
        self.machine
            .store
            .remove_snapshot(snapshot)
            .map_err(contract)
            .map(drop)
    }

    fn name(&self) -> &str {
        "sandbox"
    }

    fn capabilities(&self) -> Capabilities {
        let machine = &self.machine;
        let range = machine
            .user_namespace()
            .is_ok_and(|namespace| namespace.mapping() == Mapping::Range);
        Capabilities {
            limits: Limit::ALL
                .into_iter()
                .filter(|limit| machine.limits.supports(*limit))
                .collect(),
            networks: NetworkPolicy::ALL
                .into_iter()
                .filter(|policy| {
                    *policy != NetworkPolicy::Outbound || crate::network::outbound_available()
                })
                .collect(),
            many_user_ids: range,
            live_snapshots: false,
            terminal: true,
            remove_parent: true,
            xattrs: true,
            faithful_files: true,
            usage: true,
            deep_chains: true,
            inject_patterns: true,
            outputs: true,
            users: true,
            cache_mounts: true,
            secret_mounts: true,
            private_networks: true,
            image_defaults: true,
        }
    }

    async fn image_digest(&self, image: &str) -> Result<Option<String>> {
        let digest = self.machine.store.image_digest(image).map_err(contract)?;
        if digest.is_none() {
            return Err(Error::ImageNotFound {
                image: image.into(),
            }
            .into());
        }
        Ok(digest)
    }

    async fn inject_digest(&self, host_path: &std::path::Path) -> Result<Option<String>> {
        self.inject_digest_of(&InjectSource::directory(host_path))
            .await
    }

    async fn inject_digest_of(&self, source: &InjectSource) -> Result<Option<String>> {
        let (store, source) = (self.machine.store.clone(), source.clone());
        let digest = tokio::task::spawn_blocking(move || store.inject_digest_of(&source))
            .await
            .context("reading the files to inject")?;
        digest.map(Some).map_err(contract)
    }

    async fn copy_outputs(
        &self,
        snapshot: &SnapshotId,
        request: &OutputRequest,
    ) -> Result<OutputReport> {
        let (store, snapshot) = (self.machine.store.clone(), snapshot.clone());
        let request = request.clone();
        tokio::task::spawn_blocking(move || store.copy_outputs(&snapshot, &request))
            .await
            .context("copying files out of a snapshot")?
            .map_err(contract)
    }

    async fn inject_entries(&self, source: &InjectSource) -> Result<Vec<InjectEntry>> {
        let (store, source) = (self.machine.store.clone(), source.clone());
        tokio::task::spawn_blocking(move || store.inject_entries(&source))
            .await
            .context("reading the files to inject")?
            .map_err(contract)
    }

    async fn private_network(
        &self,
        request: &PrivateNetworkRequest,
    ) -> Result<Arc<dyn PrivateNetwork>> {
        Ok(Arc::new(SandboxNetwork::new(&self.machine, request).await?))
    }

    fn notices(&self) -> Vec<String> {
        let single = |namespace: &UserNamespace| {
            namespace.single_reason().map(|reason| {
                format!("only one user id exists inside: {reason}; `hmvm doctor` has the fix")
            })
        };
        match self.machine.user_namespace() {
            Ok(namespace) => single(&namespace).into_iter().collect(),
            Err(_) => Vec::new(),
        }
    }
}
