//! Copies of the examples, and what runs of them say.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::env::{Run, TestEnv};

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A copy of an example, which runs may change.
#[derive(Debug)]
pub(crate) struct Example {
    pub(crate) env: TestEnv,
    pub(crate) directory: PathBuf,
}

/// What one run said.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) run: Run,
    pub(crate) events: Vec<Value>,
}

impl Example {
    pub(crate) fn new(env: TestEnv, name: &str) -> Self {
        let directory = env.path().join(name);
        copy(&repository().join("examples").join(name), &directory);
        Self { env, directory }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.env.command(arguments);
        command.current_dir(&self.directory);
        command
    }

    /// `hmvm run --json`, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self) -> Told {
        self.run_with(&[])
    }

    /// The same with these variables in the environment of hmvm.
    #[track_caller]
    pub(crate) fn run_with(&self, variables: &[(&str, &str)]) -> Told {
        let mut command = self.command(&["run", "--json"]);
        command.envs(variables.iter().copied());
        Told::new(self.env.run(&mut command).success())
    }

    pub(crate) fn append(&self, file: &str, text: &str) {
        let path = self.directory.join(file);
        let mut file = fs::File::options().append(true).open(path).expect("a file");
        file.write_all(text.as_bytes()).expect("more of it");
    }
}

impl Told {
    pub(crate) fn new(run: Run) -> Self {
        let events = TestEnv::events(&run);
        Self { run, events }
    }

    /// The step and its outcome, for all steps.
    pub(crate) fn outcomes(&self) -> BTreeMap<&str, &str> {
        let ended = self.of("step_ended");
        ended
            .map(|event| {
                let word = |key: &str| event[key].as_str().expect("a word");
                (word("step"), word("outcome"))
            })
            .collect()
    }

    #[track_caller]
    pub(crate) fn all_cached(&self) {
        let outcomes = self.outcomes();
        assert!(!outcomes.is_empty());
        assert!(
            outcomes.values().all(|outcome| *outcome == "cached"),
            "{outcomes:?}"
        );
    }

    pub(crate) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events
            .iter()
            .filter(move |event| event["event"] == name)
    }

    /// The lines of a step.
    pub(crate) fn lines(&self, step: &str) -> Vec<&str> {
        self.of("output")
            .filter(|event| event["step"] == step)
            .map(|event| event["line"].as_str().expect("a line"))
            .collect()
    }

    /// How a step ended.
    #[track_caller]
    pub(crate) fn end(&self, step: &str) -> &Value {
        self.of("step_ended")
            .find(|event| event["step"] == step)
            .expect("the step's end")
    }
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("an example") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
