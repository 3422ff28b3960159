//! Podman and Buildah with a store of their own for one test.

use std::path::PathBuf;
use std::process::Command;

use hm_vm_testkit::privilege::{need_program, need_root};
use hm_vm_testkit::roots::TestRoot;
use hm_vm_testkit::skip::Skip;

use super::process::limited;

/// A store that both share.
pub(super) struct Containers {
    root: PathBuf,
}

impl Containers {
    /// One below this directory.
    pub(super) fn new(root: &TestRoot) -> Result<Self, Skip> {
        need_root()?;
        need_program("podman")?;
        need_program("buildah")?;
        let root = root.join("containers");
        Ok(Self { root })
    }

    /// Podman with it.
    pub(super) fn podman(&self) -> Command {
        let mut command = self.tool("podman");
        command
            .args(["--events-backend=none", "--tmpdir"])
            .arg(self.root.join("tmp"));
        command
    }

    /// Buildah with it.
    pub(super) fn buildah(&self) -> Command {
        self.tool("buildah")
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = limited(name).unwrap();
        command
            .arg("--root")
            .arg(self.root.join("root"))
            .arg("--runroot")
            .arg(self.root.join("run"))
            .args(["--storage-driver", "vfs"]);
        command
    }
}
