//! The `docker` program, as a script would use it.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::command;
use super::dockerd::{Dockerd, IMAGE};

/// `docker` with our daemon.
#[derive(Debug)]
pub(crate) struct Docker {
    daemon: Rc<Dockerd>,
    next: Cell<usize>,
}

impl Docker {
    pub(crate) fn new(daemon: Rc<Dockerd>) -> Self {
        Self {
            daemon,
            next: Cell::new(0),
        }
    }

    fn name(&self) -> String {
        let number = self.next.replace(self.next.get() + 1);
        format!("hm-vm-bench-{number}")
    }

    fn run_command(&self) -> Command {
        let mut command = self.daemon.client();
        command.args(["run", "--rm", IMAGE, "true"]);
        command
    }

    fn remove(&self, container: &str, image: Option<&str>) -> anyhow::Result<()> {
        command::output(self.daemon.client().args(["rm", "--force", container]))?;
        if let Some(image) = image {
            command::output(self.daemon.client().args(["rmi", "--force", image]))?;
        }
        Ok(())
    }

    pub(crate) fn empty(&self) -> anyhow::Result<Duration> {
        command::timed(&mut self.run_command())
    }

    pub(crate) fn many(&self, count: usize) -> anyhow::Result<Duration> {
        command::timed_together((0..count).map(|_| self.run_command()).collect())
    }

    /// Run, commit, remove: a step that is kept.
    pub(crate) fn step(&self) -> anyhow::Result<Duration> {
        let name = self.name();
        let image = format!("{name}:latest");
        let start = Instant::now();
        command::output(
            self.daemon
                .client()
                .args(["run", "--name", &name, IMAGE, "true"]),
        )?;
        command::output(self.daemon.client().args(["commit", &name, &image]))?;
        command::output(self.daemon.client().args(["rm", &name]))?;
        let duration = start.elapsed();
        command::output(self.daemon.client().args(["rmi", "--force", &image]))?;
        Ok(duration)
    }

    /// The commit alone, of a container whose command filled it and ended.
    pub(crate) fn snapshot(&self, cmd: &str) -> anyhow::Result<Duration> {
        let name = self.name();
        let image = format!("{name}:latest");
        command::output(
            self.daemon
                .client()
                .args(["run", "--name", &name, IMAGE, "sh", "-c", cmd]),
        )?;
        let duration = command::timed(self.daemon.client().args(["commit", &name, &image]))?;
        self.remove(&name, Some(&image))?;
        Ok(duration)
    }

    pub(crate) fn inject(&self, folder: &Path) -> anyhow::Result<Duration> {
        let name = self.name();
        command::output(
            self.daemon
                .client()
                .args(["run", "--detach", "--name", &name, IMAGE, "sleep", "600"]),
        )?;
        let duration = command::timed(
            self.daemon
                .client()
                .arg("cp")
                .arg(folder.join("."))
                .arg(format!("{name}:/src")),
        )?;
        self.remove(&name, None)?;
        Ok(duration)
    }
}
