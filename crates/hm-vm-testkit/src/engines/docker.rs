//! A Docker daemon of a test's own, to compare with.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::orphans::end_orphans;
use crate::privilege::{need_program, need_root};
use crate::process::{Lines, Supervised};
use crate::roots::TestRoot;
use crate::skip::Skip;

/// A `dockerd` on a socket in a temporary directory, with a data root of its own, without bridge
/// and firewall rules: it takes nothing of the machine's own daemon, and containers have no network
/// but `--network=host` and `none`.
///
/// It ends on drop, and dies with the test's process; its mounts are in a namespace that goes with
/// it.
#[derive(Debug)]
pub struct DockerDaemon {
    // Before the root: the process must be gone when its files are removed.
    process: Supervised,
    root: TestRoot,
}

impl DockerDaemon {
    /// Needs root, the daemon and its client.
    ///
    /// # Errors
    ///
    /// A [`Skip`] where one is missing.
    pub fn need() -> Result<(), Skip> {
        need_root()?;
        for program in ["dockerd", "docker", "containerd", "setpriv", "unshare"] {
            need_program(program)?;
        }
        Ok(())
    }

    /// Starts one, and returns when it answers.
    ///
    /// # Errors
    ///
    /// When something of [`Self::need`] is missing, or the daemon does not come up.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts one in a network namespace of its own, with a bridge and a packet filter in that. Nothing outside of the namespace is
    /// reached.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with_bridge() -> Result<Self> {
        need_program("iptables")?;
        // The last one of an option counts.
        let options = ["--bridge=", "--iptables=true", "--ip-forward=true"];
        Self::launch(&["--mount", "--net"], &options)
    }

    /// As [`start`](Self::start), with more options of `dockerd`.
    ///
    /// # Errors
    ///
    /// As `start`.
    pub fn start_with(options: &[&str]) -> Result<Self> {
        Self::launch(&["--mount"], options)
    }

    /// Starts one in new namespaces of these kinds.
    fn launch(namespaces: &[&str], options: &[&str]) -> Result<Self> {
        let root = TestRoot::new()?;
        let config = root.join("daemon.json");
        fs::write(&config, "{}").with_context(|| format!("writing {}", config.display()))?;
        let path = |option: &str, name: &str| format!("--{option}={}", root.join(name).display());
        let arguments = [
            "--propagation=private".to_owned(),
            "--".to_owned(),
            need_program("dockerd")?.display().to_string(),
            path("config-file", "daemon.json"),
            path("data-root", "data"),
            path("exec-root", "exec"),
            path("pidfile", "pid"),
            format!("--host=unix://{}", root.join("sock").display()),
            "--bridge=none".to_owned(),
            "--iptables=false".to_owned(),
            "--ip6tables=false".to_owned(),
            "--ip-forward=false".to_owned(),
            "--storage-driver=overlay2".to_owned(),
        ];
        let unshare = need_program("unshare")?;
        let mut program = vec![unshare.as_os_str()];
        program.extend(namespaces.iter().map(OsStr::new));
        program.extend(arguments.iter().map(OsStr::new));
        program.extend(options.iter().map(OsStr::new));
        let path = OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let (out, err): (Arc<Lines>, Arc<Lines>) = Default::default();
        let process = Supervised::start(&program, &[("PATH", path)], &out, &err)?;
        let ready = err.wait_for(0, |line| line.contains("API listen on").then_some(()));
        if ready.is_none() {
            bail!("dockerd does not come up: {}", process.words());
        }
        Ok(Self { process, root })
    }

    /// `unix://…`: what `DOCKER_HOST` names it by.
    pub fn host(&self) -> String {
        format!("unix://{}", self.root.join("sock").display())
    }

    /// The file of its socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("sock")
    }

    /// Kills it, without a chance to clean up. What it left is removed on drop.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What the daemon has written about itself.
    pub fn log(&self) -> String {
        self.process.words()
    }

    /// The client of this daemon, with a configuration of its own.
    ///
    /// # Errors
    ///
    /// A [`Skip`] when there is none.
    pub fn client(&self) -> Result<Command, Skip> {
        let mut command = Command::new(need_program("docker")?);
        command
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.root.join("client"))
            .env_remove("DOCKER_CONTEXT");
        Ok(command)
    }

    /// Runs `docker` with these arguments, which has to succeed, and gives what it printed,
    /// without white space at its end.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        if !output.status.success() {
            bail!(
                "docker {arguments:?}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.trim_end().to_owned())
    }

    /// Runs `docker` with these arguments, however that ends.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.client()?
            .args(arguments)
            .output()
            .context("running docker")
    }

    /// Writes the files of an image as a tar, as a container of it would see them first. Docker adds
    /// what it mounts over in every container: `dev/console`, `etc/hostname`, `etc/hosts`,
    /// `etc/mtab`, `etc/resolv.conf`, `.dockerenv`, `dev`, `proc`, `sys`.
    ///
    /// # Errors
    ///
    /// When Docker fails.
    pub fn tree(&self, image: &str, tar: &Path) -> Result<()> {
        let container = self.docker(&["create", image, "/hm-vm-never-run"])?;
        let target = tar.to_str().context("a path that is text")?;
        self.docker(&["export", "--output", target, &container])?;
        self.docker(&["rm", &container])?;
        Ok(())
    }
}

impl Drop for DockerDaemon {
    fn drop(&mut self) {
        // Its own containerd ends with it in an orderly way; killing follows in any case.
        self.process.ask_to_end();
        // Nothing, unless it was killed.
        end_orphans(self.root.path(), &self.root.join("data/containers"));
    }
}
