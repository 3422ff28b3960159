//! The engines that all tests of a run share.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

use anyhow::{Context, Result, bail};

use super::{DockerDaemon, PodmanService};
use crate::images::{self, busybox_root};
use crate::lock::lock;
use crate::privilege::need_program;
use crate::roots::TestRoot;
use crate::skip::Skip;

/// Name of the image that [`TestEngine`] has: busybox.
pub const IMAGE: &str = "hm-vm-test-busybox:1";

/// Socket of the Docker daemon that `scripts/test-engines` has started.
const DOCKER: &str = "HMVM_TEST_DOCKER";

/// Socket of the Podman service that `scripts/test-engines` has started.
const PODMAN: &str = "HMVM_TEST_PODMAN";

/// A Docker daemon or a Podman service with [`IMAGE`] in it: the one that nextest's setup script has started for all tests of the
/// run, or else one that the tests of this process share.
#[derive(Debug)]
pub struct TestEngine {
    socket: PathBuf,
    own: Option<Own>,
}

/// One that ends with its last user in this process.
#[derive(Debug)]
enum Own {
    Docker(DockerDaemon),
    Podman(PodmanService),
}

static DOCKERS: Mutex<Weak<TestEngine>> = Mutex::new(Weak::new());
static PODMANS: Mutex<Weak<TestEngine>> = Mutex::new(Weak::new());

impl TestEngine {
    /// Docker.
    ///
    /// # Errors
    ///
    /// A [`Skip`] where it cannot run.
    ///
    /// # Panics
    ///
    /// When it does not come up, or does not take the image.
    pub fn docker() -> Result<Arc<Self>, Skip> {
        shared(&DOCKERS, DOCKER, Self::own_docker)
    }

    /// Podman: root's where the tests run as root, the user's own otherwise.
    ///
    /// # Errors
    ///
    /// A [`Skip`] where it cannot run.
    ///
    /// # Panics
    ///
    /// When it does not come up, or does not take the image.
    pub fn podman() -> Result<Arc<Self>, Skip> {
        shared(&PODMANS, PODMAN, Self::own_podman)
    }

    /// Docker that nobody else uses, for tests that end it.
    ///
    /// # Errors
    ///
    /// A [`Skip`] where it cannot run.
    ///
    /// # Panics
    ///
    /// When it does not come up, or does not take the image.
    pub fn own_docker() -> Result<Arc<Self>, Skip> {
        DockerDaemon::need()?;
        images::need_busybox()?;
        let start = || {
            let daemon = DockerDaemon::start()?;
            Self::prepared(daemon.socket(), Some(Own::Docker(daemon)))
        };
        Ok(start().unwrap_or_else(|error| panic!("starting Docker: {error:#}")))
    }

    /// Docker that nobody else uses, with a bridge in a network namespace of its own.
    ///
    /// # Errors
    ///
    /// A [`Skip`] where it cannot run.
    ///
    /// # Panics
    ///
    /// As [`own_docker`](Self::own_docker).
    pub fn own_docker_with_bridge() -> Result<Arc<Self>, Skip> {
        DockerDaemon::need()?;
        need_program("iptables")?;
        images::need_busybox()?;
        let start = || {
            let daemon = DockerDaemon::start_with_bridge()?;
            Self::prepared(daemon.socket(), Some(Own::Docker(daemon)))
        };
        Ok(start().unwrap_or_else(|error| panic!("starting Docker: {error:#}")))
    }

    /// Podman that nobody else uses.
    ///
    /// # Errors
    ///
    /// As [`own_docker`](Self::own_docker).
    ///
    /// # Panics
    ///
    /// As [`own_docker`](Self::own_docker).
    pub fn own_podman() -> Result<Arc<Self>, Skip> {
        PodmanService::need()?;
        images::need_busybox()?;
        let start = || {
            let service = PodmanService::start()?;
            Self::prepared(service.socket(), Some(Own::Podman(service)))
        };
        Ok(start().unwrap_or_else(|error| panic!("starting Podman: {error:#}")))
    }

    fn prepared(socket: PathBuf, own: Option<Own>) -> Result<Arc<Self>> {
        let engine = Self { socket, own };
        engine.prepare()?;
        Ok(Arc::new(engine))
    }

    /// Kills the daemon, without a chance to clean up. What it left is removed when this is dropped.
    ///
    /// # Panics
    ///
    /// When it is not this process's own.
    pub fn kill(&self) {
        match &self.own {
            Some(Own::Docker(daemon)) => daemon.kill(),
            Some(Own::Podman(service)) => service.kill(),
            None => panic!("other tests use this engine"),
        }
    }

    /// The file of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs `docker` with these arguments, which has to succeed, and gives what it printed, without white space
    /// at its end. Podman understands it too.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub fn docker_client(&self, arguments: &[&str]) -> Result<String> {
        client(&self.socket, arguments)
    }

    /// Brings the image, once.
    fn prepare(&self) -> Result<()> {
        let directory = self.socket.parent().context("a socket in a directory")?;
        let file = File::create(directory.join("image.lock")).context("making a lock")?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .context("waiting for the image")?;
        if client(&self.socket, &["image", "inspect", IMAGE]).is_ok() {
            return Ok(());
        }
        let root = TestRoot::new()?;
        busybox_root(&root.join("tree"))?;
        let mut tar = Command::new("tar")
            .args(["--create", "--numeric-owner", "--owner=0", "--group=0", "."])
            .current_dir(root.join("tree"))
            .stdout(Stdio::piped())
            .spawn()
            .context("running tar")?;
        let files = tar.stdout.take().context("the output of tar")?;
        let mut import = docker_command(&self.socket)?;
        let imported = import
            .args(["import", "-", IMAGE])
            .stdin(files)
            .output()
            .context("running docker import")?;
        let status = tar.wait().context("waiting for tar")?;
        if !status.success() || !imported.status.success() {
            let words = String::from_utf8_lossy(&imported.stderr).into_owned();
            bail!("importing {IMAGE}: tar: {status}, docker: {words}");
        }
        Ok(())
    }
}

fn shared(
    current: &Mutex<Weak<TestEngine>>,
    variable: &str,
    start: fn() -> Result<Arc<TestEngine>, Skip>,
) -> Result<Arc<TestEngine>, Skip> {
    let mut current = lock(current);
    if let Some(engine) = current.upgrade() {
        return Ok(engine);
    }
    let engine = match std::env::var_os(variable) {
        Some(socket) => {
            images::need_busybox()?;
            TestEngine::prepared(socket.into(), None)
                .unwrap_or_else(|error| panic!("using the engine of {variable}: {error:#}"))
        }
        None => start()?,
    };
    *current = Arc::downgrade(&engine);
    Ok(engine)
}

fn docker_command(socket: &Path) -> Result<Command> {
    let mut command = Command::new(need_program("docker")?);
    command
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .env("DOCKER_CONFIG", socket.with_file_name("client"))
        .env_remove("DOCKER_CONTEXT");
    Ok(command)
}

/// Runs `docker` on the engine at this socket.
pub(super) fn client(socket: &Path, arguments: &[&str]) -> Result<String> {
    let output = docker_command(socket)?
        .args(arguments)
        .output()
        .context("running docker")?;
    if !output.status.success() {
        bail!(
            "docker {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}
