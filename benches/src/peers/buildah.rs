//! `buildah build --layers`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::{build_file, command};

const IMAGE: &str = "localhost/hm-vm-bench:latest";

/// `buildah` with a storage of its own that holds the image.
#[derive(Debug)]
pub(crate) struct Buildah {
    storage: PathBuf,
    run: PathBuf,
    chain: PathBuf,
}

impl Buildah {
    /// Makes the image from the tar. Words for the report if that cannot be.
    pub(crate) fn new(folder: &Path, tar: &Path) -> Result<Self, String> {
        command::require("buildah")?;
        let peer = Self {
            storage: folder.join("storage"),
            run: PathBuf::from(format!("/run/hm-vm-bench-buildah-{}", std::process::id())),
            chain: folder.join("chain"),
        };
        peer.prepare(&folder.join("base"), tar)
            .map(|()| peer)
            .map_err(|error| format!("{error:#}"))
    }

    fn prepare(&self, base: &Path, tar: &Path) -> anyhow::Result<()> {
        build_file::write_chain(&self.chain, IMAGE)?;
        if command::output(self.client().args(["inspect", "--type", "image", IMAGE])).is_ok() {
            return Ok(());
        }
        std::fs::create_dir_all(base).with_context(|| format!("creating {}", base.display()))?;
        std::fs::copy(tar, base.join("debian.tar"))
            .with_context(|| format!("copying {}", tar.display()))?;
        std::fs::write(base.join("Dockerfile"), "FROM scratch\nADD debian.tar /\n")
            .with_context(|| format!("writing to {}", base.display()))?;
        command::output(self.client().args(["build", "--tag", IMAGE]).arg(base)).map(drop)?;
        std::fs::remove_dir_all(base).with_context(|| format!("removing {}", base.display()))
    }

    fn client(&self) -> Command {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(&self.storage)
            .arg("--runroot")
            .arg(&self.run)
            .args(["--storage-driver", "overlay"]);
        command
    }

    fn build(&self, context: &Path, options: &[&str]) -> Command {
        let mut command = self.client();
        command
            .args(["build", "--layers", "--pull=never", "--network", "none"])
            .args(["--tag", "hm-vm-bench-built"])
            .args(options)
            .arg(context);
        command
    }

    /// The chain of `echo` steps, all of them cached after the first time.
    pub(crate) fn cached(&self) -> anyhow::Result<Duration> {
        command::timed(&mut self.build(&self.chain, &[]))
    }

    /// The chain of `echo` steps, none of them cached.
    pub(crate) fn fresh(&self) -> anyhow::Result<Duration> {
        command::timed(&mut self.build(&self.chain, &["--no-cache"]))
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        // What the fresh builds left; the image itself has a name and stays for the next run.
        let _ = command::output(self.client().args(["rmi", "--prune"]));
        let _ = std::fs::remove_dir_all(&self.run);
    }
}
