//! An engine of Docker's own for one test.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hm_vm_testkit::privilege::{need_program, need_root};
use hm_vm_testkit::roots::TestRoot;
use hm_vm_testkit::skip::Skip;
use rustix::process::{Pid, Signal, kill_process};

use super::process::{limited, run, write_context};

/// How long an engine may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running engine without a network; it ends with this.
pub(super) struct Engine {
    daemon: Child,
    socket: String,
}

impl Engine {
    /// Starts one below this directory.
    pub(super) fn start(root: &TestRoot) -> Result<Self, Skip> {
        need_root()?;
        need_program("docker")?;
        let daemon = need_program("dockerd")?;
        let socket = format!("unix://{}", root.join("docker.sock").display());
        let log = File::create(root.join("docker.log")).unwrap();
        let daemon = Command::new(daemon)
            .arg("--data-root")
            .arg(root.join("docker-data"))
            .arg("--exec-root")
            .arg(root.join("docker-exec"))
            .arg("--pidfile")
            .arg(root.join("docker.pid"))
            .args([
                "--host",
                &socket,
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut engine = Self { daemon, socket };
        let begun = Instant::now();
        while !engine
            .docker()
            .arg("version")
            .output()
            .unwrap()
            .status
            .success()
        {
            let log = || std::fs::read_to_string(root.join("docker.log")).unwrap_or_default();
            assert!(
                engine.daemon.try_wait().unwrap().is_none(),
                "dockerd ends: {}",
                log()
            );
            assert!(
                begun.elapsed() < PATIENCE,
                "dockerd does not start: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(engine)
    }

    /// Its client.
    pub(super) fn docker(&self) -> Command {
        let mut command = limited("docker").unwrap();
        command
            .args(["--host", &self.socket])
            .env("DOCKER_BUILDKIT", "0")
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// Builds the image of the tests, and tells its id.
    pub(super) fn build(&self, context: &Path, name: &str) -> String {
        write_context(context);
        run(self.docker().args(["build", "-q", "-t", name]).arg(context))
    }

    /// The id of an image.
    pub(super) fn id(&self, name: &str) -> String {
        run(self
            .docker()
            .args(["image", "inspect", "--format", "{{.Id}}", name]))
    }

    /// Writes images into an archive.
    pub(super) fn save(&self, to: &Path, names: &[&str]) {
        run(self.docker().arg("save").arg("-o").arg(to).args(names));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let ends = |daemon: &mut Child| {
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE {
                if !matches!(daemon.try_wait(), Ok(None)) {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            false
        };
        if let Some(pid) = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if !ends(&mut self.daemon) {
            let _ = self.daemon.kill();
            let _ = self.daemon.wait();
        }
    }
}
