//! A pipeline in an environment of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hm_vm_testkit::skip::Skip;
use serde_json::Value;

use crate::env::{Run, TestEnv};

/// A project with a pipeline file.
pub(crate) struct Project {
    pub(crate) env: TestEnv,
}

/// A run of a pipeline, by its events.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) code: i32,
    pub(crate) all: Vec<Value>,
    pub(crate) stderr: String,
}

impl Project {
    /// A project on a machine that can run VMs.
    pub(crate) fn new(file: &str) -> Result<Self, Skip> {
        let env = TestEnv::machine()?;
        env.write("project/hmvm.toml", file);
        Ok(Self { env })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.env.path().join("project").join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        self.env.write(&format!("project/{name}"), content);
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.env.command(arguments);
        command.current_dir(self.env.path().join("project"));
        command
    }

    /// Runs the program in the project.
    pub(crate) fn hmvm(&self, arguments: &[&str]) -> Run {
        self.env.run(&mut self.command(arguments))
    }

    /// `hmvm run --json` with these arguments.
    pub(crate) fn run(&self, arguments: &[&str]) -> Events {
        let mut all = vec!["run", "--json"];
        all.extend(arguments);
        Events::of(&self.hmvm(&all))
    }

    /// What the store has in snapshots.
    pub(crate) fn snapshots(&self) -> usize {
        let list = self.env.json(["snapshot", "ls", "--json"]);
        list.as_array().expect("a list").len()
    }

    /// Fails unless nothing of any VM is left.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.env.leftovers(), Value::Array(vec![]));
        let traces = self.env.traces();
        assert!(traces.is_empty(), "{traces:?}");
    }
}

impl Events {
    #[track_caller]
    pub(crate) fn of(run: &Run) -> Self {
        Self {
            code: run.code,
            all: TestEnv::events(run),
            stderr: run.stderr.clone(),
        }
    }

    #[track_caller]
    pub(crate) fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{:#?}", self.stderr, self.all);
        self
    }

    fn events<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all.iter().filter(move |event| event["event"] == name)
    }

    /// The closing event of one step.
    #[track_caller]
    pub(crate) fn step(&self, name: &str) -> &Value {
        self.events("step_ended")
            .find(|event| event["step"] == name)
            .unwrap_or_else(|| panic!("{name} has not ended: {:#?}", self.all))
    }

    /// How each step ended.
    pub(crate) fn outcomes(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        self.events("step_ended")
            .map(|event| (text(&event["step"]), text(&event["outcome"])))
            .collect()
    }

    /// The output of one step.
    pub(crate) fn output(&self, step: &str) -> Vec<String> {
        self.events("output")
            .filter(|event| event["step"] == step)
            .map(|event| event["line"].as_str().expect("text").to_owned())
            .collect()
    }

    pub(crate) fn notices(&self) -> Vec<&str> {
        self.events("notice")
            .filter_map(|event| event["text"].as_str())
            .collect()
    }

    /// The closing event of the run.
    #[track_caller]
    pub(crate) fn end(&self) -> &Value {
        let last = self.all.last().expect("events");
        assert_eq!(last["event"], "run_ended", "{:#?}", self.all);
        last
    }

    pub(crate) fn verdict(&self) -> &str {
        self.end()["verdict"].as_str().expect("text")
    }
}

/// The outcomes that are expected, as `("step", "outcome")`.
pub(crate) fn outcomes(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |&(step, outcome): &(&str, &str)| (step.to_owned(), outcome.to_owned());
    expected.iter().map(owned).collect()
}
