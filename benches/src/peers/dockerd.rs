//! A Docker daemon of our own, with its own data, gone at the end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::command;

/// The image that the benchmark imports.
pub(crate) const IMAGE: &str = "hm-vm-bench:latest";

/// A running daemon that holds the image.
#[derive(Debug)]
pub(crate) struct Dockerd {
    child: Child,
    /// Value for `DOCKER_HOST`.
    pub(crate) host: String,
    run: PathBuf,
    /// How the daemon stores layers.
    pub(crate) driver: String,
}

impl Dockerd {
    /// Starts a daemon with its data in `folder` and imports the tar. Words for the report if that cannot be.
    pub(crate) fn start(folder: &Path, tar: &Path) -> Result<Self, String> {
        command::require("docker")?;
        command::require("dockerd")?;
        command::require("setpriv")?;
        Self::try_start(folder, tar).map_err(|error| format!("{error:#}"))
    }

    fn try_start(folder: &Path, tar: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating {}", folder.display()))?;
        // Short, because the path of a socket has at most 107 bytes.
        let run = PathBuf::from(format!("/run/hm-vm-bench-{}", std::process::id()));
        std::fs::create_dir_all(&run)
            .with_context(|| format!("creating {} (dockerd needs root)", run.display()))?;
        let log = folder.join("dockerd.log");
        let log_file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let host = format!("unix://{}/docker.sock", run.display());
        // Without a bridge: nothing of the machine's network is changed, and all racers start without network.
        // The kernel ends it with us, even if we are killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "dockerd"])
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(run.join("exec"))
            .arg("--pidfile")
            .arg(run.join("pid"))
            .arg("--host")
            .arg(&host)
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"])
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().context("sharing the log of dockerd")?)
            .stderr(log_file)
            .spawn()
            .context("starting dockerd")?;
        let mut daemon = Self {
            child,
            host,
            run,
            driver: String::new(),
        };
        daemon.wait_until_ready(&log)?;
        daemon.driver = command::output(daemon.client().args(["info", "--format", "{{.Driver}}"]))?;
        command::output(daemon.client().arg("import").arg(tar).arg(IMAGE))?;
        Ok(daemon)
    }

    fn wait_until_ready(&mut self, log: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while command::output(
            self.client()
                .args(["version", "--format", "{{.Server.Version}}"]),
        )
        .is_err()
        {
            if let Some(status) = self.child.try_wait().context("looking after dockerd")? {
                bail!("dockerd ended: {status} (see {})", log.display());
            }
            if Instant::now() > deadline {
                bail!("dockerd did not answer within 60 s (see {})", log.display());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// `docker`, talking to this daemon.
    pub(crate) fn client(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &self.host);
        command
    }

    /// The file of its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join("docker.sock")
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        // `Child` can only kill, and a killed daemon leaves containerd behind.
        command::output(Command::new("kill").arg(self.child.id().to_string()))?;
        self.child.wait().context("waiting for dockerd")?;
        Ok(())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.run);
    }
}
