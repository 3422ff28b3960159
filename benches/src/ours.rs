//! This project's engine on the sandbox backend, through the library as its users use it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hm_vm::sandbox::{SandboxBackend, SandboxOptions};
use hm_vm::store::Store;
use hm_vm::{
    Action, CachingPolicy, HmVm, ImageRegistry, ImageSource, NullSink, OutputSink, SnapshotId,
    SnapshotLabel, Vm, VmBackend, VmConfig,
};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// What the Debian root is called in the store.
pub(crate) const IMAGE: &str = "debian";

/// The engine, its backend and a store.
pub(crate) struct Ours {
    pub(crate) runtime: Runtime,
    pub(crate) store: Store,
    pub(crate) backend: Arc<dyn VmBackend>,
    engine: HmVm,
    next_key: Cell<u64>,
    chain: RefCell<Vec<SnapshotId>>,
}

impl fmt::Debug for Ours {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Ours")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl Ours {
    /// Opens the store in `folder` and imports the tar if it does not hold it yet.
    pub(crate) fn open(folder: &Path, tar: &Path) -> anyhow::Result<Self> {
        let store = Store::open(&folder.join("store")).context("opening the store")?;
        if store
            .image(IMAGE)
            .context("looking for the image")?
            .is_none()
        {
            store
                .import_image(tar, IMAGE)
                .context("importing the image")?;
        }
        let backend: Arc<dyn VmBackend> = Arc::new(
            SandboxBackend::open(store.clone(), SandboxOptions::default())
                .context("opening the sandbox")?,
        );
        let capacity = NonZeroU64::new(10_000).context("capacity")?;
        let registry = ImageRegistry::open(&folder.join("registry.db"), capacity)
            .context("opening the registry")?;
        Ok(Self {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("starting tokio")?,
            engine: HmVm::new(Arc::clone(&backend), registry, VmConfig::default()),
            backend,
            store,
            next_key: Cell::new(0),
            chain: RefCell::default(),
        })
    }

    pub(crate) fn create(&self) -> anyhow::Result<Box<dyn Vm>> {
        self.runtime
            .block_on(self.backend.create(IMAGE, &VmConfig::default()))
    }

    pub(crate) fn exec(&self, vm: &dyn Vm, cmd: &str, sink: &dyn OutputSink) -> anyhow::Result<()> {
        let code = self.runtime.block_on(vm.exec(cmd, &[], "/", sink))?;
        ensure!(code == 0, "{cmd} exited with {code}");
        Ok(())
    }

    pub(crate) fn destroy(&self, mut vm: Box<dyn Vm>) -> anyhow::Result<()> {
        self.runtime.block_on(vm.destroy())
    }

    fn action() -> Action {
        Action {
            source: ImageSource::Image(IMAGE.into()),
            cmd: "true".into(),
            env: Vec::new(),
            working_dir: "/".into(),
            timeout: None,
            inject: None,
        }
    }

    /// A key that no earlier run of the benchmark used.
    fn fresh_key(&self) -> String {
        let number = self.next_key.replace(self.next_key.get() + 1);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        format!("bench:{}-{number}", now.as_nanos())
    }

    pub(crate) fn empty(&self) -> anyhow::Result<Duration> {
        self.runtime
            .block_on(run_true(Arc::clone(&self.backend), None))
    }

    /// One step with snapshot and publish; what it left is removed outside the measured time.
    pub(crate) fn step(&self) -> anyhow::Result<Duration> {
        let key = self.fresh_key();
        let start = Instant::now();
        let result = self.runtime.block_on(self.engine.execute(
            Self::action(),
            CachingPolicy::Cache { key: key.clone() },
            &NullSink,
        ))?;
        let duration = start.elapsed();
        ensure!(!result.cached, "{key} was in the cache");
        self.forget(&key)?;
        Ok(duration)
    }

    /// Runs a step that later calls of `hit` find.
    pub(crate) fn prepare_hit(&self) -> anyhow::Result<String> {
        let key = self.fresh_key();
        let policy = CachingPolicy::Cache { key: key.clone() };
        self.runtime
            .block_on(self.engine.execute(Self::action(), policy, &NullSink))?;
        Ok(key)
    }

    pub(crate) fn hit(&self, key: &str) -> anyhow::Result<Duration> {
        let (action, policy) = (
            Self::action(),
            CachingPolicy::Cache {
                key: key.to_owned(),
            },
        );
        // Timed inside, as a caller on the runtime sees it.
        self.runtime.block_on(async {
            let start = Instant::now();
            let result = self.engine.execute(action, policy, &NullSink).await?;
            let duration = start.elapsed();
            ensure!(result.cached, "{key} was not in the cache");
            Ok(duration)
        })
    }

    pub(crate) fn forget(&self, key: &str) -> anyhow::Result<()> {
        if let Some(snapshot) = self.engine.registry().invalidate(key) {
            self.runtime
                .block_on(self.engine.remove_snapshot(&snapshot))?;
        }
        Ok(())
    }

    /// The snapshot alone, after a command that filled the VM.
    pub(crate) fn snapshot(&self, cmd: &str) -> anyhow::Result<Duration> {
        let mut vm = self.create()?;
        self.exec(vm.as_ref(), cmd, &NullSink)?;
        let start = Instant::now();
        let snapshot = self
            .runtime
            .block_on(vm.snapshot(&SnapshotLabel::Ephemeral))?;
        let duration = start.elapsed();
        self.destroy(vm)?;
        self.runtime
            .block_on(self.backend.remove_snapshot(&snapshot))?;
        Ok(duration)
    }

    /// Makes a chain of snapshots, each forked from the one before.
    pub(crate) fn make_chain(&self, depth: usize) -> anyhow::Result<()> {
        let mut chain = self.chain.borrow_mut();
        while chain.len() < depth {
            let mut vm = match chain.last() {
                None => self.create()?,
                Some(parent) => self
                    .runtime
                    .block_on(self.backend.restore(parent, &VmConfig::default()))?,
            };
            self.exec(
                vm.as_ref(),
                &format!("echo {} >/level", chain.len() + 1),
                &NullSink,
            )?;
            chain.push(
                self.runtime
                    .block_on(vm.snapshot(&SnapshotLabel::Ephemeral))?,
            );
            self.destroy(vm)?;
        }
        Ok(())
    }

    /// Restores the snapshot of this depth, runs `true`, destroys.
    pub(crate) fn fork(&self, depth: usize) -> anyhow::Result<Duration> {
        let snapshot = self
            .chain
            .borrow()
            .get(depth - 1)
            .cloned()
            .context("no snapshot of that depth")?;
        self.runtime
            .block_on(run_true(Arc::clone(&self.backend), Some(snapshot)))
    }

    pub(crate) fn remove_chain(&self) -> anyhow::Result<()> {
        for snapshot in self.chain.borrow_mut().drain(..).rev() {
            self.runtime
                .block_on(self.backend.remove_snapshot(&snapshot))?;
        }
        Ok(())
    }

    pub(crate) fn inject(&self, folder: &Path) -> anyhow::Result<Duration> {
        let vm = self.create()?;
        let start = Instant::now();
        self.runtime.block_on(vm.inject(folder, "/src"))?;
        let duration = start.elapsed();
        self.destroy(vm)?;
        Ok(duration)
    }

    /// An inject that must copy nothing: the store holds as many layers after it as before.
    pub(crate) fn inject_again(&self, folder: &Path) -> anyhow::Result<Duration> {
        let before = self.store.stats()?.layers;
        let duration = self.inject(folder)?;
        let after = self.store.stats()?.layers;
        ensure!(before == after, "{before} layers became {after}");
        Ok(duration)
    }

    pub(crate) fn many(&self, count: usize) -> anyhow::Result<Duration> {
        self.runtime.block_on(async {
            let start = Instant::now();
            let mut running: JoinSet<anyhow::Result<Duration>> = (0..count)
                .map(|_| run_true(Arc::clone(&self.backend), None))
                .collect();
            while let Some(result) = running.join_next().await {
                result.context("joining")??;
            }
            Ok(start.elapsed())
        })
    }
}

/// Create or restore, `true`, destroy.
async fn run_true(
    backend: Arc<dyn VmBackend>,
    from: Option<SnapshotId>,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let config = VmConfig::default();
    let mut vm = match from {
        None => backend.create(IMAGE, &config).await?,
        Some(snapshot) => backend.restore(&snapshot, &config).await?,
    };
    let code = vm.exec("true", &[], "/", &NullSink).await?;
    ensure!(code == 0, "true exited with {code}");
    vm.destroy().await?;
    Ok(start.elapsed())
}
