//! Everything that the rows measure with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context as _, ensure};

use crate::arguments::{Arguments, Part};
use crate::ours::Ours;
use crate::peers::{BuildKit, Buildah, Bwrap, Docker, DockerOnly, Dockerd, Runc};
use crate::pipelines::Pipelines;
use crate::talk;

/// The machine under test with all racers ready, or the reason why one is not.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) quick: bool,
    /// The root of the repository.
    pub(crate) repository: PathBuf,
    /// Where everything is kept, on a real disk.
    pub(crate) folder: PathBuf,
    /// The Debian root, as a tar.
    pub(crate) tar: PathBuf,
    /// The program, built like this one.
    pub(crate) hmvm: Result<PathBuf, String>,
    pub(crate) ours: Result<Ours, String>,
    pub(crate) bwrap: Result<Bwrap, String>,
    pub(crate) runc: Result<Runc, String>,
    pub(crate) docker: Result<Docker, String>,
    pub(crate) buildkit: Result<BuildKit, String>,
    pub(crate) buildah: Result<Buildah, String>,
    /// `hmvm run`.
    pub(crate) pipelines: Result<Pipelines, String>,
    // Ends before the daemon does: fields are dropped in this order.
    docker_only: Result<DockerOnly, String>,
    pub(crate) daemon: Result<Rc<Dockerd>, String>,
}

impl Bench {
    pub(crate) fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the benchmark is not inside the repository")?
            .to_owned();
        let program = std::env::current_exe().context("looking for this program")?;
        let target = program
            .ancestors()
            .nth(2)
            .context("this program is not in a target directory")?;
        let folder = target.join("bench");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("creating {}", folder.display()))?;
        talk::progress("preparing: the Debian root");
        let tar = debian_tar(&repository, target)?;
        let root = unpacked_root(&tar, &folder)?;
        talk::progress("preparing: the Docker daemon");
        let daemon = Dockerd::start(&folder.join("docker"), &tar).map(Rc::new);
        let docker_only = docker_only(arguments, &repository, &folder, daemon.as_ref().ok());
        talk::progress("preparing: hmvm");
        let hmvm = build_hmvm(&repository, target).map_err(|error| format!("{error:#}"));
        talk::progress("preparing: the builders");
        let buildkit = daemon
            .clone()
            .and_then(|daemon| BuildKit::new(daemon, &folder.join("buildkit")));
        let buildah = Buildah::new(&folder.join("buildah"), &tar);
        let pipelines = hmvm
            .clone()
            .and_then(|program| Pipelines::open(program, &folder, &tar));
        let bench = Self {
            quick: arguments.quick,
            hmvm,
            ours: Ours::open(&folder, &tar).map_err(|error| format!("{error:#}")),
            bwrap: Bwrap::new(&root),
            runc: Runc::new(&root, &folder.join("runc")),
            docker: daemon.clone().map(Docker::new),
            buildkit,
            buildah,
            pipelines,
            docker_only,
            daemon,
            repository,
            folder,
            tar,
        };
        bench.tell_what_is_missing();
        Ok(bench)
    }

    /// The Docker-only crate with a daemon.
    pub(crate) fn docker_only(&self) -> Result<&DockerOnly, String> {
        self.daemon.as_ref().map_err(Clone::clone)?;
        self.docker_only.as_ref().map_err(Clone::clone)
    }

    /// The Docker-only crate's registry, which needs no daemon.
    pub(crate) fn docker_only_registry(&self) -> Result<&DockerOnly, String> {
        self.docker_only.as_ref().map_err(Clone::clone)
    }

    /// How many rounds to do where a full run does `rounds`.
    pub(crate) fn rounds(&self, rounds: usize) -> usize {
        if self.quick {
            rounds.div_ceil(5)
        } else {
            rounds
        }
    }

    fn tell_what_is_missing(&self) {
        let missing = [
            self.hmvm.as_ref().err(),
            self.ours.as_ref().err(),
            self.bwrap.as_ref().err(),
            self.runc.as_ref().err(),
            self.daemon.as_ref().err(),
            self.docker_only.as_ref().err(),
            self.buildkit.as_ref().err(),
            self.buildah.as_ref().err(),
            self.pipelines.as_ref().err(),
        ];
        for why in missing.into_iter().flatten() {
            talk::progress(&format!("missing: {why}"));
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

fn debian_tar(repository: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    let tar = target.join("images/debian.tar");
    run(Command::new(repository.join("scripts/make-debian-root"))
        .arg(&tar)
        .stdout(std::process::Stdio::null()))?;
    Ok(tar)
}

fn unpacked_root(tar: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let root = folder.join("root");
    if !root.join("bin/true").exists() {
        std::fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
        run(Command::new("tar")
            .arg("--extract")
            .arg("--file")
            .arg(tar)
            .arg("--directory")
            .arg(&root))?;
    }
    Ok(root)
}

/// Compiles the Docker-only crate, unless nobody asks for it: that takes minutes.
fn docker_only(
    arguments: &Arguments,
    repository: &Path,
    folder: &Path,
    daemon: Option<&Rc<Dockerd>>,
) -> Result<DockerOnly, String> {
    if !arguments.parts().into_iter().any(Part::has_docker_only) {
        return Err("no part that was asked for measures the Docker-only crate".into());
    }
    talk::progress("preparing: the Docker-only crate (compiled once)");
    DockerOnly::start(
        repository,
        &folder.join("docker-only"),
        daemon.map(Rc::as_ref),
    )
}

fn build_hmvm(repository: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    run(Command::new(env!("CARGO"))
        .args([
            "build",
            "--release",
            "--quiet",
            "--package",
            "hmvm",
            "--target-dir",
        ])
        .arg(target)
        .current_dir(repository))?;
    Ok(target.join("release/hmvm"))
}
