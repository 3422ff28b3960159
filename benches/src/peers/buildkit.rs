//! `docker build` with BuildKit.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;

use super::dockerd::{Dockerd, IMAGE};
use super::{build_file, command};

/// A `docker` program that can drive the BuildKit of our daemon.
#[derive(Debug)]
pub(crate) struct BuildKit {
    daemon: Rc<Dockerd>,
    program: PathBuf,
    chain: PathBuf,
    copied: OnceCell<PathBuf>,
}

impl BuildKit {
    /// Looks for a program that can. Later ones than 20.10 need a plugin for it.
    pub(crate) fn new(daemon: Rc<Dockerd>, folder: &Path) -> Result<Self, String> {
        let chain = folder.join("chain");
        build_file::write_chain(&chain, IMAGE).map_err(|error| format!("{error:#}"))?;
        let mut why = String::from("docker is not installed");
        for program in programs() {
            let peer = Self {
                daemon: Rc::clone(&daemon),
                program,
                chain: chain.clone(),
                copied: OnceCell::new(),
            };
            match command::output(&mut peer.build(&chain, &[])) {
                Ok(_) => return Ok(peer),
                Err(error) => why = format!("{error:#}"),
            }
        }
        Err(why)
    }

    fn build(&self, context: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("DOCKER_HOST", &self.daemon.host)
            .env("DOCKER_BUILDKIT", "1")
            .args(["build", "--network", "none", "--tag", "hm-vm-bench-built"])
            .args(options)
            .arg(context);
        command
    }

    /// The chain of `echo` steps, all of them cached.
    pub(crate) fn cached(&self) -> anyhow::Result<Duration> {
        command::timed(&mut self.build(&self.chain, &[]))
    }

    /// The chain of `echo` steps, none of them cached.
    pub(crate) fn fresh(&self) -> anyhow::Result<Duration> {
        command::timed(&mut self.build(&self.chain, &["--no-cache"]))
    }

    /// One cached step on an unchanged context.
    pub(crate) fn unchanged(&self, context: &Path) -> anyhow::Result<Duration> {
        if self.copied.get().is_none() {
            build_file::write_copy(context, IMAGE)?;
            self.copied.get_or_init(|| context.to_owned());
            command::output(&mut self.build(context, &[])).context("filling the cache")?;
        }
        command::timed(&mut self.build(context, &[]))
    }
}

/// Every `docker` on the search path.
fn programs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| folder.join("docker"))
        .filter(|program| program.is_file())
        .collect();
    programs.dedup();
    programs
}
