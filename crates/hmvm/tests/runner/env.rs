//! A clean environment for each test.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hm_vm_testkit::skip::Skip;
use serde_json::Value;
use tempfile::TempDir;

/// A directory, a home and a store of its own; nothing of the caller's environment but `PATH`.
#[derive(Debug)]
pub(crate) struct TestEnv {
    directory: TempDir,
}

/// How a run of the program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestEnv {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("hmvm-test-")
            .tempdir()
            .expect("a temporary directory");
        fs::create_dir(directory.path().join("home")).expect("a home");
        Self { directory }
    }

    /// An environment on a machine that can run VMs.
    pub(crate) fn machine() -> Result<Self, Skip> {
        let env = Self::new();
        let run = env.hmvm(["doctor", "--json"]);
        let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
        if report["usable"] == true {
            Ok(env)
        } else {
            Err(Skip::new(format!("no VM can run here: {report}")))
        }
    }

    /// The test's own directory.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The store.
    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// Writes a file below the test's directory.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(&path, content).expect("a file");
        path
    }

    /// The program in this environment, not started yet.
    pub(crate) fn command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hmvm"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path().join("home"))
            .env("HMVM_STORE", self.store())
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn hmvm<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        self.run(&mut self.command(arguments))
    }

    /// Runs a command that was made by [`command`](Self::command), and perhaps changed.
    pub(crate) fn run(&self, command: &mut Command) -> Run {
        self.finished(command.output().expect("hmvm starts"))
    }

    /// Runs the program, which must succeed, and reads its standard output as JSON.
    #[track_caller]
    pub(crate) fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Value {
        let run = self.hmvm(arguments).success();
        serde_json::from_str(&run.stdout).expect("JSON")
    }

    /// What `hmvm doctor` finds left over.
    #[track_caller]
    pub(crate) fn leftovers(&self) -> Value {
        let run = self.hmvm(["doctor", "--json"]);
        let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert_eq!(report["store_error"], Value::Null);
        report["leftovers"].clone()
    }

    /// What this store left on the machine, looked at without the program: processes of its VMs,
    /// mounts of its directories, files of VMs.
    pub(crate) fn traces(&self) -> Vec<String> {
        let here = self.path().to_string_lossy().into_owned();
        let mut traces = Vec::new();
        for process in fs::read_dir("/proc").expect("/proc") {
            let directory = process.expect("an entry").path();
            let read = |name: &str| fs::read(directory.join(name)).unwrap_or_default();
            let environment = String::from_utf8_lossy(&read("environ")).contains(&here);
            let mounts = String::from_utf8_lossy(&read("mounts")).contains(&here);
            if environment || mounts {
                let name = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
                traces.push(format!("{}: {name}", directory.display()));
            }
        }
        for place in ["vms", "tmp", "trash"] {
            let entries = fs::read_dir(self.store().join(place)).into_iter().flatten();
            traces.extend(
                entries
                    .flatten()
                    .map(|entry| entry.path().display().to_string()),
            );
        }
        traces
    }

    /// Runs `exec --json`, which must succeed, and gives its closing event.
    #[track_caller]
    pub(crate) fn result(&self, arguments: &[&str]) -> Value {
        Self::last_event(&self.hmvm(arguments).success())
    }

    /// All events of an `exec --json`.
    #[track_caller]
    pub(crate) fn events(run: &Run) -> Vec<Value> {
        run.stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("an event"))
            .collect()
    }

    /// The closing event of an `exec --json`.
    #[track_caller]
    pub(crate) fn last_event(run: &Run) -> Value {
        Self::events(run).pop().expect("an event")
    }

    /// Text of a finished run, with the test's directory as `$DIR`, and without what it says about
    /// the rights of the user that the tests happen to run as.
    pub(crate) fn finished(&self, output: Output) -> Run {
        let text = |bytes: Vec<u8>| {
            let here = self.path().to_string_lossy().into_owned();
            String::from_utf8(bytes)
                .expect("UTF-8")
                .replace(&here, "$DIR")
        };
        Run {
            code: output.status.code().expect("an exit code, not a signal"),
            stdout: text(output.stdout),
            stderr: without_notices(&text(output.stderr)),
        }
    }
}

/// What was said, but for what depends on the user that the tests happen to run as.
pub(crate) fn without_notices(talk: &str) -> String {
    talk.split_inclusive('\n')
        .filter(|line| !line.starts_with("note: only one user id exists inside"))
        .collect()
}

impl Run {
    /// Fails the test unless the program exited with 0.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.exits_with(0)
    }

    /// Fails the test unless the program exited with `code`.
    #[track_caller]
    pub(crate) fn exits_with(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }
}
