//! bubblewrap: the fastest of the peers, with namespaces but without snapshots.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::command;

/// `bwrap` on an unpacked root.
#[derive(Clone, Debug)]
pub(crate) struct Bwrap {
    root: PathBuf,
}

impl Bwrap {
    pub(crate) fn new(root: &Path) -> Result<Self, String> {
        command::require("bwrap").map(|()| Self {
            root: root.to_owned(),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("bwrap");
        command.arg("--ro-bind").arg(&self.root).args([
            "/",
            "--unshare-all",
            "--die-with-parent",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/tmp",
            "--",
            "true",
        ]);
        command
    }

    pub(crate) fn empty(&self) -> anyhow::Result<Duration> {
        command::timed(&mut self.command())
    }

    pub(crate) fn many(&self, count: usize) -> anyhow::Result<Duration> {
        command::timed_together((0..count).map(|_| self.command()).collect())
    }
}
