//! The fake backend itself, and what its VMs share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;
use async_trait::async_trait;
use hm_vm_core::{
    Capabilities, Error, NetworkPolicy, SnapshotId, SnapshotLabel, Vm, VmBackend, VmConfig,
};

use super::inject;
use super::journal::{Call, Counts};
use super::shell::FakeExec;
use super::tree::Tree;
use super::vm::{FakeVm, Injected};
use crate::conformance::ImageConfiguration;
use crate::failpoint::Failpoints;
use crate::lock::lock;

type Action = Arc<dyn Fn(&mut FakeExec<'_>) -> i32 + Send + Sync>;

#[derive(Clone, Debug)]
pub(super) struct StoredSnapshot {
    pub(super) tree: Tree,
    pub(super) injected: Injected,
    pub(super) label: SnapshotLabel,
    pub(super) says: Arc<ImageConfiguration>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) snapshots: HashMap<SnapshotId, StoredSnapshot>,
    pub(super) live: BTreeSet<u64>,
    images: BTreeMap<String, Option<String>>,
    says: BTreeMap<String, Arc<ImageConfiguration>>,
    calls: Vec<Call>,
    violations: Vec<String>,
    last_number: u64,
}

/// What the VMs of one backend share with it.
pub(super) struct Shared {
    state: Mutex<State>,
    scripts: Mutex<HashMap<String, Action>>,
    capabilities: Mutex<Capabilities>,
    pub(super) failpoints: Failpoints,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("live", &self.state().live)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        lock(&self.capabilities).clone()
    }

    pub(super) fn called(&self, call: Call) {
        self.state().calls.push(call);
    }

    pub(super) fn violation(&self, what: String) {
        self.state().violations.push(what);
    }

    pub(super) fn scripted(&self, cmd: &str) -> Option<Action> {
        let scripts = lock(&self.scripts);
        scripts.get(cmd).cloned()
    }

    pub(super) fn store(&self, snapshot: StoredSnapshot) -> SnapshotId {
        let mut state = self.state();
        state.last_number += 1;
        // Nobody should take an id for a path, a word, or a number.
        let id = SnapshotId::new(format!("../fake snapshot #{} €", state.last_number));
        state.snapshots.insert(id.clone(), snapshot);
        id
    }
}

/// Finds violations when the last clone of a backend goes.
#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.0.state();
        let mut violations = std::mem::take(&mut state.violations);
        violations.extend(
            state
                .live
                .iter()
                .map(|vm| format!("VM {vm} is still alive")),
        );
        drop(state);
        if !violations.is_empty() && !std::thread::panicking() {
            panic!("the fake backend was misused: {violations:#?}");
        }
    }
}

/// A backend in memory. Clones share everything. See the [module](super) for what it checks.
#[derive(Clone, Debug)]
pub struct FakeBackend {
    handle: Arc<Handle>,
}

impl Default for FakeBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeBackend {
    /// A backend with the images `debian:bookworm` and `alpine`, no limits, and no network.
    pub fn new() -> Self {
        let capabilities = Capabilities {
            networks: vec![NetworkPolicy::None],
            remove_parent: true,
            deep_chains: true,
            image_defaults: true,
            ..Capabilities::default()
        };
        let backend = Self {
            handle: Arc::new(Handle(Arc::new(Shared {
                state: Mutex::default(),
                scripts: Mutex::default(),
                capabilities: Mutex::new(capabilities),
                failpoints: Failpoints::new(),
            }))),
        };
        backend.add_image("debian:bookworm");
        backend.add_image("alpine");
        backend
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.0
    }

    /// Adds an image, with a digest made of its name.
    pub fn add_image(&self, name: &str) {
        self.set_image_digest(name, Some(&format!("fake:{name}")));
    }

    /// Sets the digest of an image, adding it if need be. `None` is an image that the backend
    /// cannot tell the digest of.
    pub fn set_image_digest(&self, name: &str, digest: Option<&str>) {
        let digest = digest.map(str::to_owned);
        self.shared().state().images.insert(name.to_owned(), digest);
    }

    /// Sets what the configuration of an image says. A user in it is refused by every command, as `users` is not
    /// there.
    pub fn set_image_configuration(&self, name: &str, says: ImageConfiguration) {
        let says = Arc::new(says);
        self.shared().state().says.insert(name.to_owned(), says);
    }

    /// Declares other capabilities. Limits and networks that are declared are accepted, though a
    /// fake cannot enforce them.
    pub fn set_capabilities(&self, capabilities: Capabilities) {
        *lock(&self.shared().capabilities) = capabilities;
    }

    /// Lets `act` stand for the command `cmd`, whole and exact. It returns the exit code.
    pub fn on_exec(
        &self,
        cmd: &str,
        act: impl Fn(&mut FakeExec<'_>) -> i32 + Send + Sync + 'static,
    ) {
        let mut scripts = lock(&self.shared().scripts);
        scripts.insert(cmd.to_owned(), Arc::new(act));
    }

    /// The failpoints that its methods reach. See the [module](super).
    pub fn failpoints(&self) -> &Failpoints {
        &self.shared().failpoints
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared().state().calls.clone()
    }

    /// How often each method was called so far.
    pub fn counts(&self) -> Counts {
        Counts::of(&self.shared().state().calls)
    }

    /// The snapshots that exist, with their labels, in no order.
    pub fn snapshots(&self) -> Vec<(SnapshotId, SnapshotLabel)> {
        let state = self.shared().state();
        state
            .snapshots
            .iter()
            .map(|(id, snapshot)| (id.clone(), snapshot.label.clone()))
            .collect()
    }

    /// Loses a snapshot behind everybody's back.
    pub fn lose_snapshot(&self, snapshot: &SnapshotId) {
        self.shared().state().snapshots.remove(snapshot);
    }

    /// VMs that are neither destroyed nor dropped, by number.
    pub fn live_vms(&self) -> Vec<u64> {
        self.shared().state().live.iter().copied().collect()
    }

    /// Misuse so far, which is then forgotten.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.shared().state().violations)
    }

    fn check_config(&self, config: &VmConfig) -> Result<(), Error> {
        self.capabilities()
            .check(config, |_| "the fake enforces nothing".into())
    }

    fn vm(&self, tree: Tree, injected: Injected, says: Arc<ImageConfiguration>) -> FakeVm {
        let shared = Arc::clone(self.shared());
        let mut state = shared.state();
        state.last_number += 1;
        let number = state.last_number;
        state.live.insert(number);
        drop(state);
        FakeVm {
            number,
            shared,
            tree: Mutex::new(tree),
            injected: Mutex::new(injected),
            says,
            busy: AtomicBool::new(false),
            destroyed: false,
        }
    }
}

#[async_trait]
impl VmBackend for FakeBackend {
    async fn create(&self, image: &str, config: &VmConfig) -> Result<Box<dyn Vm>> {
        self.shared().called(Call::Create {
            image: image.to_owned(),
        });
        self.check_config(config)?;
        self.failpoints().reach("create").await?;
        tokio::task::yield_now().await;
        if !self.shared().state().images.contains_key(image) {
            return Err(Error::ImageNotFound {
                image: image.to_owned(),
            }
            .into());
        }
        let says = self.shared().state().says.get(image).cloned();
        let says = says.unwrap_or_default();
        let vm = self.vm(Tree::image(image), Injected::new(), says);
        self.failpoints().reach("create.done").await?;
        tokio::task::yield_now().await;
        Ok(Box::new(vm))
    }

    async fn restore(&self, snapshot: &SnapshotId, config: &VmConfig) -> Result<Box<dyn Vm>> {
        self.shared().called(Call::Restore {
            snapshot: snapshot.clone(),
        });
        self.check_config(config)?;
        self.failpoints().reach("restore").await?;
        tokio::task::yield_now().await;
        let stored = self.shared().state().snapshots.get(snapshot).cloned();
        let stored = stored.ok_or_else(|| Error::SnapshotNotFound {
            snapshot: snapshot.clone(),
        })?;
        let vm = self.vm(stored.tree, stored.injected, stored.says);
        self.failpoints().reach("restore.done").await?;
        tokio::task::yield_now().await;
        Ok(Box::new(vm))
    }

    async fn snapshot_exists(&self, snapshot: &SnapshotId) -> Result<bool> {
        self.shared().called(Call::SnapshotExists {
            snapshot: snapshot.clone(),
        });
        self.failpoints().reach("snapshot_exists").await?;
        tokio::task::yield_now().await;
        let exists = self.shared().state().snapshots.contains_key(snapshot);
        self.failpoints().reach("snapshot_exists.done").await?;
        Ok(exists)
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<()> {
        self.shared().called(Call::RemoveSnapshot {
            snapshot: snapshot.clone(),
        });
        self.failpoints().reach("remove_snapshot").await?;
        tokio::task::yield_now().await;
        self.shared().state().snapshots.remove(snapshot);
        self.failpoints().reach("remove_snapshot.done").await
    }

    fn name(&self) -> &str {
        "fake"
    }

    fn capabilities(&self) -> Capabilities {
        self.shared().capabilities()
    }

    async fn image_digest(&self, image: &str) -> Result<Option<String>> {
        let digest = self.shared().state().images.get(image).cloned();
        digest.ok_or_else(|| {
            Error::ImageNotFound {
                image: image.to_owned(),
            }
            .into()
        })
    }

    async fn inject_digest(&self, host_path: &Path) -> Result<Option<String>> {
        inject::digest(host_path).map(Some)
    }
}
