//! The program beside a daemon.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use hm_vm_testkit::engines::TestEngine;
use hm_vm_testkit::skip::Skip;
use serde_json::Value;

use crate::env::{Run, TestEnv};

/// An environment whose `DOCKER_HOST` is a real daemon, and in which nothing else is found.
#[derive(Debug)]
pub(super) struct Docked {
    pub(super) env: TestEnv,
    pub(super) engine: Arc<TestEngine>,
}

impl Docked {
    pub(super) fn new() -> Result<Self, Skip> {
        Ok(Self {
            engine: TestEngine::docker()?,
            env: TestEnv::new(),
        })
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.env.command(arguments);
        name_daemons(&mut command, Some(self.engine.socket()));
        command
    }

    pub(super) fn hmvm(&self, arguments: &[&str]) -> Run {
        self.env.run(&mut self.command(arguments))
    }

    /// As [`hmvm`](Self::hmvm), in Docker.
    pub(super) fn docked(&self, arguments: &[&str]) -> Run {
        let (command, rest) = arguments.split_first().expect("a command");
        let sub: usize = usize::from(["snapshot", "cache"].contains(command));
        let mut all = vec![*command];
        all.extend(&rest[..sub]);
        all.extend(["--backend", "docker"]);
        all.extend(&rest[sub..]);
        self.hmvm(&all)
    }

    /// Runs the program in Docker, which must succeed, and reads its standard output as JSON.
    #[track_caller]
    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        let run = self.docked(arguments).success();
        serde_json::from_str(&run.stdout).expect("JSON")
    }

    /// What this store has in the daemon, by the daemon's own words: containers and images.
    pub(super) fn objects(&self) -> Vec<String> {
        let owner =
            std::fs::read_to_string(self.env.store().join("docker/owner")).expect("an owner");
        let label = format!("label=io.hm-vm.owner={}", owner.trim());
        let list = |arguments: &[&str]| {
            let text = self.engine.docker_client(arguments).expect("docker");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let mut found = list(&["ps", "--all", "--quiet", "--filter", &label]);
        found.extend(list(&["images", "--quiet", "--filter", &label]));
        found
    }
}

/// Where the program finds daemons: nowhere but there.
pub(super) fn name_daemons(command: &mut Command, docker: Option<&Path>) {
    let nobody = Path::new("/nonexistent/socket");
    let host = |path: &Path| format!("unix://{}", path.display());
    command
        .env("DOCKER_HOST", host(docker.unwrap_or(nobody)))
        .env("CONTAINER_HOST", host(nobody));
}
