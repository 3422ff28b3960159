//! The program `hmvm run` on files made for the purpose, with a store of its own.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::ours::IMAGE;

/// The program, and where it works.
#[derive(Debug)]
pub(crate) struct Pipelines {
    program: PathBuf,
    /// The store and the pipelines; gone at the end.
    folder: TempDir,
    /// Makes each fresh pipeline one that nobody ran before.
    round: Cell<u128>,
}

/// How many steps of a run were skipped, and how many ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    pub(crate) cached: usize,
    pub(crate) ran: usize,
}

impl Pipelines {
    /// Makes the store and imports the tar.
    pub(crate) fn open(program: PathBuf, folder: &Path, tar: &Path) -> Result<Self, String> {
        Self::try_open(program, folder, tar).map_err(|error| format!("{error:#}"))
    }

    fn try_open(program: PathBuf, folder: &Path, tar: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pipelines.")
            .tempdir_in(folder)
            .context("making a folder for pipelines")?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let pipelines = Self {
            program,
            folder,
            round: Cell::new(now.as_nanos()),
        };
        let mut import = pipelines.command(pipelines.folder.path(), &["image", "import"]);
        import.arg(tar).arg(IMAGE);
        succeed(&mut import)?;
        Ok(pipelines)
    }

    /// Where this pipeline is, or would be.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a pipeline; `steps` is what follows its head.
    pub(crate) fn write(&self, name: &str, steps: &str) -> anyhow::Result<PathBuf> {
        let directory = self.directory(name);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        let file = directory.join("hmvm.toml");
        let text = format!("[pipeline]\nname = \"{name}\"\nimage = \"{IMAGE}\"\n\n{steps}");
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(directory)
    }

    /// Words that no earlier pipeline had: a step with them in its environment is in no cache.
    pub(crate) fn fresh(&self) -> String {
        let round = self.round.get();
        self.round.set(round + 1);
        format!("env = {{ ROUND = \"{round}\" }}\n")
    }

    /// `hmvm` with this store in this directory.
    pub(crate) fn command(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("HMVM_STORE", self.directory("store"))
            .current_dir(directory)
            .stdin(Stdio::null());
        command
    }

    /// The whole process; its output goes to a file, as in a script.
    pub(crate) fn run(&self, directory: &Path) -> anyhow::Result<Duration> {
        let log = self.directory("output");
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let mut command = self.command(directory, &["run"]);
        command
            .stdout(file.try_clone().context("sharing the output file")?)
            .stderr(file);
        let start = Instant::now();
        let status = command.status().context("starting hmvm")?;
        let duration = start.elapsed();
        ensure!(
            status.success(),
            "hmvm run failed: {status}: {}",
            std::fs::read_to_string(&log).unwrap_or_default()
        );
        Ok(duration)
    }

    /// The same with `--json`, to see what became of the steps. Not for measuring.
    pub(crate) fn steps(&self, directory: &Path) -> anyhow::Result<Steps> {
        let output = succeed(&mut self.command(directory, &["run", "--json"]))?;
        let mut steps = Steps::default();
        for line in output.lines() {
            let event: Value = serde_json::from_str(line).context("reading an event")?;
            match event["outcome"].as_str() {
                Some("cached") if event["event"] == "step_ended" => steps.cached += 1,
                Some("succeeded") if event["event"] == "step_ended" => steps.ran += 1,
                _ => {}
            }
        }
        Ok(steps)
    }

    /// Runs a pipeline until the cache has all of its `count` steps.
    pub(crate) fn fill(&self, directory: &Path, count: usize) -> anyhow::Result<()> {
        self.run(directory)?;
        let steps = self.steps(directory)?;
        let wanted = Steps {
            cached: count,
            ran: 0,
        };
        ensure!(steps == wanted, "{steps:?} in the second run");
        Ok(())
    }
}

/// Runs a program that must succeed, and gives what it said.
pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
