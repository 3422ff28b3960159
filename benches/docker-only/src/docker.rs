//! The crate's backend and engine on a Docker daemon.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use docker_only::docker::DockerBackend;
use docker_only::{
    Action, CachingPolicy, HmVm, ImageRegistry, ImageSource, NullSink, OutputSink, SnapshotId,
    SnapshotLabel, Vm, VmBackend, VmConfig,
};

/// Counts the bytes of lines.
#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl OutputSink for Counted {
    fn on_stdout(&self, line: &str) {
        self.0.fetch_add(line.len() as u64, Ordering::Relaxed);
    }

    fn on_stderr(&self, _line: &str) {}
}

/// A connection to the daemon, and the snapshots that were made over it.
pub struct Docker {
    backend: Arc<dyn VmBackend>,
    engine: HmVm,
    chain: HashMap<usize, SnapshotId>,
    image: String,
}

impl Docker {
    /// `rest` is the image to start from and the path of a registry.
    pub fn connect(rest: &str) -> anyhow::Result<Self> {
        let (image, path) = rest.split_once(' ').context("connect IMAGE REGISTRY")?;
        let backend: Arc<dyn VmBackend> = Arc::new(DockerBackend::connect()?);
        let registry = ImageRegistry::open(
            Path::new(path),
            NonZeroU64::new(10_000).context("capacity")?,
        )?;
        let engine = HmVm::new(Arc::clone(&backend), registry, VmConfig::default());
        Ok(Self {
            backend,
            engine,
            chain: HashMap::new(),
            image: image.to_owned(),
        })
    }

    pub async fn follow(&mut self, order: &str, rest: &str) -> anyhow::Result<Duration> {
        match order {
            "empty" => self.empty().await,
            "step" => self.step(rest).await,
            "hit" => self.hit(rest).await,
            "snapshot" => self.snapshot(rest).await,
            "chain" => self.make_chain(rest.parse()?).await,
            "fork" => self.fork(rest.parse()?).await,
            "inject" => self.inject(rest.as_ref()).await,
            "output" => self.output(rest.parse()?).await,
            "forget" => self.forget(rest).await,
            "many" => self.many(rest.parse()?).await,
            _ => anyhow::bail!("unknown order {order}"),
        }
    }

    fn action(&self) -> Action {
        Action {
            source: ImageSource::Image(self.image.clone()),
            cmd: "true".into(),
            env: Vec::new(),
            working_dir: "/".into(),
            timeout: None,
            inject: None,
        }
    }

    async fn run_true(vm: &mut Box<dyn Vm>) -> anyhow::Result<()> {
        let code = vm.exec("true", &[], "/", &NullSink).await?;
        ensure!(code == 0, "true exited with {code}");
        vm.destroy().await
    }

    async fn empty(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut vm = self
            .backend
            .create(&self.image, &VmConfig::default())
            .await?;
        Self::run_true(&mut vm).await?;
        Ok(start.elapsed())
    }

    /// One step with snapshot and publish, under a key that was never used.
    async fn step(&self, key: &str) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let result = self
            .engine
            .execute(
                self.action(),
                CachingPolicy::Cache {
                    key: key.to_owned(),
                },
                &NullSink,
            )
            .await?;
        let duration = start.elapsed();
        ensure!(!result.cached, "{key} was in the cache");
        Ok(duration)
    }

    async fn hit(&self, key: &str) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let result = self
            .engine
            .execute(
                self.action(),
                CachingPolicy::Cache {
                    key: key.to_owned(),
                },
                &NullSink,
            )
            .await?;
        let duration = start.elapsed();
        ensure!(result.cached, "{key} was not in the cache");
        Ok(duration)
    }

    /// The snapshot alone, after a command that filled the VM.
    async fn snapshot(&self, cmd: &str) -> anyhow::Result<Duration> {
        let mut vm = self
            .backend
            .create(&self.image, &VmConfig::default())
            .await?;
        let code = vm.exec(cmd, &[], "/", &NullSink).await?;
        ensure!(code == 0, "the filling command exited with {code}");
        let start = Instant::now();
        let snapshot = vm.snapshot(&SnapshotLabel::Ephemeral).await?;
        let duration = start.elapsed();
        vm.destroy().await?;
        self.backend.remove_snapshot(&snapshot).await?;
        Ok(duration)
    }

    async fn make_chain(&mut self, depth: usize) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut parent: Option<SnapshotId> = None;
        for level in 1..=depth {
            let mut vm = match &parent {
                None => {
                    self.backend
                        .create(&self.image, &VmConfig::default())
                        .await?
                }
                Some(parent) => self.backend.restore(parent, &VmConfig::default()).await?,
            };
            vm.exec(&format!("echo {level} >/level"), &[], "/", &NullSink)
                .await?;
            let snapshot = vm.snapshot(&SnapshotLabel::Ephemeral).await?;
            vm.destroy().await?;
            self.chain.insert(level, snapshot.clone());
            parent = Some(snapshot);
        }
        Ok(start.elapsed())
    }

    async fn fork(&self, depth: usize) -> anyhow::Result<Duration> {
        let snapshot = self
            .chain
            .get(&depth)
            .context("no snapshot of that depth")?;
        let start = Instant::now();
        let mut vm = self.backend.restore(snapshot, &VmConfig::default()).await?;
        Self::run_true(&mut vm).await?;
        Ok(start.elapsed())
    }

    async fn inject(&self, path: &Path) -> anyhow::Result<Duration> {
        let mut vm = self
            .backend
            .create(&self.image, &VmConfig::default())
            .await?;
        let start = Instant::now();
        vm.inject(path, "/src").await?;
        let duration = start.elapsed();
        vm.destroy().await?;
        Ok(duration)
    }

    async fn output(&self, megabytes: u64) -> anyhow::Result<Duration> {
        let mut vm = self
            .backend
            .create(&self.image, &VmConfig::default())
            .await?;
        let sink = Counted::default();
        let start = Instant::now();
        let cmd = format!(
            "yes 0123456789012345678901234567890123456789012345678 | head -c {megabytes}000000"
        );
        vm.exec(&cmd, &[], "/", &sink).await?;
        let duration = start.elapsed();
        // It breaks lines at the borders of chunks: the bytes of the lines themselves can be counted, not their ends.
        let bytes = sink.0.load(Ordering::Relaxed);
        ensure!(bytes == megabytes * 980_000, "{bytes} bytes came");
        vm.destroy().await?;
        Ok(duration)
    }

    async fn forget(&self, key: &str) -> anyhow::Result<Duration> {
        self.backend.remove_snapshot(&SnapshotId::new(key)).await?;
        Ok(Duration::ZERO)
    }

    async fn many(&self, count: usize) -> anyhow::Result<Duration> {
        let start = Instant::now();
        futures::future::try_join_all((0..count).map(|_| self.empty())).await?;
        Ok(start.elapsed())
    }
}
