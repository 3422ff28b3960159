//! A registry on this machine with an image of 200 MB, and what pulls it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use hm_vm_testkit::registry::{RegistryServer, RegistrySetup};
use tempfile::TempDir;

use crate::bench::Bench;
use crate::measure::peak_until_the_end;
use crate::pipelines::{Pipelines, succeed};

/// The image, as dockerd, the registry and an archive have it.
#[derive(Debug)]
pub(crate) struct Images<'a> {
    bench: &'a Bench,
    server: RegistryServer,
    /// Name of the image in the registry.
    name: String,
    /// What `docker save` made of it.
    archive: PathBuf,
    /// Stores and layouts of the rounds.
    folder: TempDir,
    pipelines: Pipelines,
}

/// What the program is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Pull,
    Archive,
}

impl<'a> Images<'a> {
    /// Starts the registry and fills it.
    pub(crate) fn prepare(bench: &'a Bench) -> anyhow::Result<Self> {
        let daemon = bench.daemon.as_ref().map_err(|why| anyhow!("{why}"))?;
        let program = bench.hmvm.clone().map_err(|why| anyhow!("{why}"))?;
        let tar = large_tar(&bench.repository, &bench.folder)?;
        // Of an earlier run, whose registry had another port: `docker pull` would find its layers.
        let earlier =
            succeed(
                daemon
                    .client()
                    .args(["images", "--format", "{{.Repository}}:{{.Tag}}"]),
            )?;
        for image in earlier
            .lines()
            .filter(|image| image.ends_with("/debian:large"))
        {
            succeed(daemon.client().args(["rmi", "--force", image]))?;
        }
        let server = RegistryServer::start(RegistrySetup::default())?;
        let name = format!("{}/debian:large", server.address());
        let archive = bench.folder.join("large-docker-save.tar");
        for arguments in [
            vec![
                "import".into(),
                tar.clone().into_os_string(),
                name.clone().into(),
            ],
            vec!["push".into(), name.clone().into()],
            vec![
                "save".into(),
                "--output".into(),
                archive.clone().into(),
                name.clone().into(),
            ],
        ] {
            succeed(daemon.client().args(&arguments))?;
        }
        let folder = tempfile::Builder::new()
            .prefix("images.")
            .tempdir_in(&bench.folder)
            .context("making a folder for images")?;
        let pipelines =
            Pipelines::open(program, &bench.folder, &bench.tar).map_err(|why| anyhow!("{why}"))?;
        Ok(Self {
            bench,
            server,
            name,
            archive,
            folder,
            pipelines,
        })
    }

    fn program(&self, store: &Path, kind: Kind) -> Command {
        let mut command = self.pipelines.command(store, &["image"]);
        command.env("HMVM_STORE", store);
        match kind {
            Kind::Pull => command.args(["pull", &self.name]),
            Kind::Archive => command.arg("import").arg(&self.archive).arg("large"),
        };
        command
    }

    /// `hmvm image pull` or `import` into a new store.
    pub(crate) fn hmvm(&self, kind: Kind) -> anyhow::Result<Duration> {
        let store = self.round()?;
        timed(&mut self.program(store.path(), kind))
    }

    /// Peak of memory of a pull, in KiB.
    pub(crate) fn peak(&self) -> anyhow::Result<i64> {
        let store = self.round()?;
        let mut command = self.program(store.path(), Kind::Pull);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        peak_until_the_end(&mut command.spawn().context("starting hmvm")?)
    }

    /// `docker pull` of what the daemon does not have.
    pub(crate) fn docker_pull(&self) -> anyhow::Result<Duration> {
        self.docker_forget()?;
        timed(self.docker()?.args(["pull", &self.name]))
    }

    /// `docker load` of what the daemon does not have.
    pub(crate) fn docker_load(&self) -> anyhow::Result<Duration> {
        self.docker_forget()?;
        timed(self.docker()?.arg("load").arg("--input").arg(&self.archive))
    }

    /// `skopeo copy` to a layout and `umoci unpack` of that.
    pub(crate) fn skopeo_umoci(&self) -> anyhow::Result<Duration> {
        let round = self.round()?;
        let layout = round.path().join("layout");
        let copy = timed(
            Command::new("skopeo")
                .args(["copy", "--src-tls-verify=false"])
                .arg(format!("docker://{}", self.name))
                .arg(format!("oci:{}:large", layout.display())),
        )?;
        let unpack = timed(
            Command::new("umoci")
                .args(["unpack", "--image"])
                .arg(format!("{}:large", layout.display()))
                .arg(round.path().join("bundle")),
        )?;
        Ok(copy + unpack)
    }

    /// A run of a pipeline that another store has shared, on a store that has the image alone. The bytes of the
    /// steps are random: they cannot be compressed away.
    pub(crate) fn remote_hit(&self, name: &str, count: usize) -> anyhow::Result<Duration> {
        let bytes = 10_000_000 / count;
        let mut steps = String::new();
        for step in 1..=count {
            let _ = writeln!(steps, "[steps.s{step}]");
            if step > 1 {
                let _ = writeln!(steps, "from = \"s{}\"", step - 1);
            }
            let _ = writeln!(
                steps,
                "run = \"head -c {bytes} /dev/urandom > /data{step}; echo {step}\"\n"
            );
        }
        let directory = self.pipelines.write(name, &steps)?;
        let cache = format!("{}/cache", self.server.address());
        let run = |store: &Path, json: bool| {
            let mut command = self
                .pipelines
                .command(&directory, &["run", "--remote-cache", &cache]);
            command.env("HMVM_STORE", store);
            if json {
                command.arg("--json");
            }
            command
        };
        // The first time, this runs it; afterwards it is there.
        succeed(&mut run(&self.pipelines.directory("store"), false))?;
        let round = self.round()?;
        let store = round.path().join("store");
        let mut import = self.pipelines.command(round.path(), &["image", "import"]);
        import
            .env("HMVM_STORE", &store)
            .arg(&self.bench.tar)
            .arg(crate::ours::IMAGE);
        succeed(&mut import)?;
        let start = Instant::now();
        let output = succeed(&mut run(&store, true))?;
        let duration = start.elapsed();
        let cached = output
            .lines()
            .filter(|line| line.contains("step_ended") && line.contains("\"outcome\":\"cached\""))
            .count();
        ensure!(
            cached == count,
            "{cached} of {count} steps came from the shared cache: {output}"
        );
        Ok(duration)
    }

    fn docker(&self) -> anyhow::Result<Command> {
        let daemon = self.bench.daemon.as_ref().map_err(|why| anyhow!("{why}"))?;
        Ok(daemon.client())
    }

    fn docker_forget(&self) -> anyhow::Result<()> {
        succeed(self.docker()?.args(["rmi", "--force", &self.name])).map(drop)
    }

    fn round(&self) -> anyhow::Result<TempDir> {
        tempfile::tempdir_in(self.folder.path()).context("making a folder for a round")
    }
}

/// A Debian root of some 200 MB; made once.
fn large_tar(repository: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let tar = folder.join("debian-large.tar");
    succeed(
        Command::new(repository.join("scripts/make-debian-root"))
            .arg(&tar)
            .arg("git"),
    )?;
    Ok(tar)
}

fn timed(command: &mut Command) -> anyhow::Result<Duration> {
    let start = Instant::now();
    succeed(command)?;
    Ok(start.elapsed())
}
