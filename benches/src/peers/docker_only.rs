//! The published Docker-only crate of the same API, driven through a program of its own (see its manifest for why).

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::command;
use super::dockerd::{Dockerd, IMAGE};

/// The driver program, waiting for orders.
#[derive(Debug)]
pub(crate) struct DockerOnly(RefCell<Driver>);

#[derive(Debug)]
struct Driver {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl DockerOnly {
    /// Builds the driver and connects it to the daemon; without one only its registry can be measured.
    pub(crate) fn start(
        repository: &Path,
        folder: &Path,
        daemon: Option<&Dockerd>,
    ) -> Result<Self, String> {
        Self::try_start(repository, folder, daemon).map_err(|error| format!("{error:#}"))
    }

    fn try_start(
        repository: &Path,
        folder: &Path,
        daemon: Option<&Dockerd>,
    ) -> anyhow::Result<Self> {
        let target = folder.join("target");
        command::output(
            Command::new(env!("CARGO"))
                .args([
                    "build",
                    "--release",
                    "--locked",
                    "--quiet",
                    "--manifest-path",
                ])
                .arg(repository.join("benches/docker-only/Cargo.toml"))
                .arg("--target-dir")
                .arg(&target),
        )
        .context("building the driver of the Docker-only crate")?;
        let mut command = Command::new(target.join("release/docker-only"));
        if let Some(daemon) = daemon {
            command.env("DOCKER_HOST", &daemon.host);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the driver")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the driver has no output")?);
        let peer = Self(RefCell::new(Driver {
            child,
            orders,
            answers,
        }));
        if daemon.is_some() {
            let registry = folder.join("registry.db");
            // Its entries name snapshots of an earlier run.
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", registry.display()));
            }
            peer.order(&format!("connect {IMAGE} {}", registry.display()))?;
        }
        Ok(peer)
    }

    /// Sends one order and waits for its answer.
    pub(crate) fn order(&self, order: &str) -> anyhow::Result<Duration> {
        let mut driver = self.0.borrow_mut();
        let orders = driver.orders.as_mut().context("the driver was stopped")?;
        writeln!(orders, "{order}").context("sending an order to the driver")?;
        let mut answer = String::new();
        driver
            .answers
            .read_line(&mut answer)
            .context("reading the driver's answer")?;
        match answer.trim_end().split_once(' ') {
            Some(("ok", nanos)) => Ok(Duration::from_nanos(
                nanos.parse().context("reading the driver's time")?,
            )),
            Some(("error", message)) => bail!("{message}"),
            _ => bail!("the driver ended"),
        }
    }
}

impl Drop for DockerOnly {
    fn drop(&mut self) {
        let driver = self.0.get_mut();
        // It ends when its orders do.
        driver.orders = None;
        let _ = driver.child.wait();
    }
}
