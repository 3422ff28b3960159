//! The published Docker-only crate of the same API, driven through a program of its own (see its manifest for why).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::command;
use super::dockerd::{Dockerd, IMAGE};
use super::driver::Driver;

/// The driver program, waiting for orders.
#[derive(Debug)]
pub(crate) struct DockerOnly(Driver);

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
        let peer = Self(Driver::start(&mut command)?);
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
        self.0.order(order)
    }

    /// See [`Driver::growth`].
    pub(crate) fn growth(&self, order: &str) -> anyhow::Result<i64> {
        self.0.growth(order)
    }
}
