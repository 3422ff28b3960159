//! runc: what Docker runs containers with.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::command;

/// `runc run` on an unpacked root.
#[derive(Debug)]
pub(crate) struct Runc {
    bundle: PathBuf,
    next: Cell<usize>,
}

impl Runc {
    /// Writes a bundle into `folder`.
    pub(crate) fn new(root: &Path, folder: &Path) -> Result<Self, String> {
        command::require("runc")?;
        Self::write_bundle(root, folder).map_err(|error| format!("{error:#}"))?;
        Ok(Self {
            bundle: folder.to_owned(),
            next: Cell::new(0),
        })
    }

    fn write_bundle(root: &Path, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating {}", folder.display()))?;
        let path = folder.join("config.json");
        // runc refuses to write over a bundle.
        if !path.exists() {
            command::output(Command::new("runc").arg("spec").current_dir(folder))?;
        }
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut spec: Value =
            serde_json::from_slice(&text).context("reading the specification of runc")?;
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["true"]);
        spec["root"] = json!({ "path": root, "readonly": true });
        std::fs::write(&path, serde_json::to_vec(&spec)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    fn command(&self) -> Command {
        let number = self.next.replace(self.next.get() + 1);
        let mut command = Command::new("runc");
        command
            .arg("run")
            .arg("--bundle")
            .arg(&self.bundle)
            .arg(format!("hm-vm-bench-{}-{number}", std::process::id()));
        command
    }

    pub(crate) fn empty(&self) -> anyhow::Result<Duration> {
        command::timed(&mut self.command())
    }

    pub(crate) fn many(&self, count: usize) -> anyhow::Result<Duration> {
        command::timed_together((0..count).map(|_| self.command()).collect())
    }
}
