//! This project's engine on the backend of containers, in a process of its own: it follows the orders that the driver of the
//! Docker-only crate follows.

use std::io::{BufRead as _, Write as _};
use std::num::NonZeroU64;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hm_vm::docker::{DockerBackend, DockerOptions, Endpoint};
use hm_vm::{
    Action, CachingPolicy, HmVm, ImageRegistry, ImageSource, NullSink, OutputSink, VmBackend,
    VmConfig,
};
use tokio::runtime::Runtime;

use crate::peers::{DOCKER_IMAGE, Dockerd, Driver};

/// First argument of the process that follows orders.
pub(crate) const DRIVE: &str = "--drive-containers";

/// Starts a process of this program on the daemon.
pub(crate) fn start(folder: &Path, daemon: &Dockerd) -> anyhow::Result<Driver> {
    let program = std::env::current_exe().context("looking for this program")?;
    Driver::start(
        Command::new(program)
            .arg(DRIVE)
            .arg(daemon.socket())
            .arg(folder),
    )
}

/// Follows orders until there are no more.
pub(crate) fn drive(socket: &Path, folder: &Path) -> anyhow::Result<()> {
    let containers = Containers::open(socket, folder)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("reading an order")?;
        let answer = match containers.follow(&line) {
            Ok(duration) => format!("ok {}", duration.as_nanos()),
            Err(error) => format!("error {}", format!("{error:#}").replace('\n', " ")),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")
            .and_then(|()| out.flush())
            .context("answering")?;
    }
    Ok(())
}

struct Containers {
    runtime: Runtime,
    backend: DockerBackend,
    engine: HmVm,
}

impl Containers {
    fn open(socket: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mut options = DockerOptions::default();
        options.endpoint = Some(Endpoint::Unix(socket.to_owned()));
        options.state = Some(folder.to_owned());
        let backend = DockerBackend::open(options)?;
        let registry = ImageRegistry::open(
            &backend.state_directory().join("registry.db"),
            NonZeroU64::new(10_000).context("capacity")?,
        )?;
        let shared: Arc<dyn VmBackend> = Arc::new(backend.clone());
        Ok(Self {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("starting tokio")?,
            engine: HmVm::new(shared, registry, VmConfig::default()),
            backend,
        })
    }

    fn follow(&self, line: &str) -> anyhow::Result<Duration> {
        let (order, rest) = line.split_once(' ').unwrap_or((line, ""));
        self.runtime.block_on(async {
            match order {
                "empty" => self.empty().await,
                "step" => self.execute(rest, false).await,
                "hit" => self.execute(rest, true).await,
                "inject" => self.inject(rest.as_ref()).await,
                "output" => self.output(rest.parse()?).await,
                "forget" => self.forget(rest).await,
                "settle" => {
                    ensure!(self.backend.flush(), "the daemon did not become idle");
                    Ok(Duration::ZERO)
                }
                _ => anyhow::bail!("unknown order {order}"),
            }
        })
    }

    async fn empty(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let config = VmConfig::default();
        let mut vm = self.backend.create(DOCKER_IMAGE, &config).await?;
        let code = vm.exec("true", &[], "/", &NullSink).await?;
        ensure!(code == 0, "true exited with {code}");
        vm.destroy().await?;
        Ok(start.elapsed())
    }

    async fn execute(&self, key: &str, is_hit: bool) -> anyhow::Result<Duration> {
        let action = Action {
            source: ImageSource::Image(DOCKER_IMAGE.into()),
            cmd: "true".into(),
            env: Vec::new(),
            working_dir: "/".into(),
            timeout: None,
            inject: None,
        };
        let policy = CachingPolicy::Cache {
            key: key.to_owned(),
        };
        let start = Instant::now();
        let result = self.engine.execute(action, policy, &NullSink).await?;
        let duration = start.elapsed();
        ensure!(result.cached == is_hit, "{key}: hit is {}", result.cached);
        Ok(duration)
    }

    async fn inject(&self, path: &Path) -> anyhow::Result<Duration> {
        let config = VmConfig::default();
        let mut vm = self.backend.create(DOCKER_IMAGE, &config).await?;
        let start = Instant::now();
        vm.inject(path, "/src").await?;
        let duration = start.elapsed();
        vm.destroy().await?;
        Ok(duration)
    }

    async fn output(&self, megabytes: u64) -> anyhow::Result<Duration> {
        let config = VmConfig::default();
        let mut vm = self.backend.create(DOCKER_IMAGE, &config).await?;
        vm.exec("true", &[], "/", &NullSink).await?;
        let sink = Counted::default();
        let start = Instant::now();
        let cmd = format!("yes {LINE} | head -c {megabytes}000000");
        vm.exec(&cmd, &[], "/", &sink).await?;
        let duration = start.elapsed();
        let bytes = sink.0.load(Ordering::Relaxed);
        ensure!(bytes == megabytes * 1_000_000, "{bytes} bytes came");
        vm.destroy().await?;
        Ok(duration)
    }

    async fn forget(&self, key: &str) -> anyhow::Result<Duration> {
        if let Some(snapshot) = self.engine.registry().invalidate(key) {
            self.engine.remove_snapshot(&snapshot).await?;
        }
        Ok(Duration::ZERO)
    }
}

/// 49 bytes, and 50 with its end: whole lines make a million.
const LINE: &str = "0123456789012345678901234567890123456789012345678";

/// Counts the bytes of lines.
#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl OutputSink for Counted {
    fn on_stdout(&self, line: &str) {
        self.0.fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
    }

    fn on_stderr(&self, _line: &str) {}
}
