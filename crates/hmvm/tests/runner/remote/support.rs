//! Stores that share a cache.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hm_vm_testkit::images::busybox_root;
use hm_vm_testkit::registry::{RegistryServer, RegistrySetup, need_registry};
use hm_vm_testkit::roots::TestRoot;
use hm_vm_testkit::skip::Skip;

use crate::env::{Run, TestEnv};
use crate::pipeline::support::{Events, Project};

/// Far more than anything takes here: a run that lasts longer hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// A registry, and the root file system of the image `busybox` of all its stores.
#[derive(Debug)]
pub(crate) struct Sharing {
    pub(crate) server: RegistryServer,
    root: TestRoot,
}

impl Sharing {
    /// A registry that is open to everybody.
    pub(crate) fn new() -> Result<Self, Skip> {
        Self::with(RegistrySetup::default())
    }

    pub(crate) fn with(setup: RegistrySetup) -> Result<Self, Skip> {
        need_registry()?;
        let root = TestRoot::new().expect("a directory");
        Ok(Self {
            server: RegistryServer::start(setup).expect("a registry"),
            root,
        })
    }

    /// The repository of the cache.
    pub(crate) fn repository(&self) -> String {
        format!("{}/team/cache", self.server.address())
    }

    /// A project on a store of its own, with the image `busybox`.
    pub(crate) fn store(&self, file: &str) -> Result<Project, Skip> {
        let tree = self.root.join("busybox");
        if !tree.exists() {
            hm_vm_testkit::images::need_busybox()?;
            busybox_root(&tree).expect("a root file system");
        }
        let project = Project::new(file)?;
        let tree = tree.to_str().expect("text");
        project
            .env
            .hmvm(["image", "import", tree, "busybox"])
            .success();
        Ok(project)
    }

    /// How many requests of a kind the server has answered.
    pub(crate) fn asked(&self, kind: fn(&hm_vm_testkit::registry::Request) -> bool) -> usize {
        let requests = self.server.requests().expect("the registry's log");
        requests.iter().filter(|request| kind(request)).count()
    }
}

impl Project {
    /// `hmvm run --json --remote-cache REPOSITORY`, and more arguments.
    pub(super) fn run_shared(&self, repository: &str, more: &[&str]) -> Events {
        let mut arguments = vec!["run", "--json", "--remote-cache", repository];
        arguments.extend(more);
        Events::of(&finish(&self.env, self.command(&arguments)))
    }

    /// All files of a snapshot, by a command in a machine that is forked from it: kind, mode,
    /// owner, size, time, and what files and links hold.
    pub(super) fn tree(&self, snapshot: &str) -> String {
        // A directory's size is its file system's business. What a machine brings along is none
        // of the snapshot's.
        let script = "cd / && find . -xdev | sort | while read -r f; do \
             case $f in .|./dev|./dev/*|./proc|./sys|./etc|./etc/hosts|./etc/hostname|./etc/resolv.conf) continue;; esac; \
             if [ -L \"$f\" ]; then echo \"$f -> $(readlink \"$f\") $(stat -c '%u %g' \"$f\")\"; \
             elif [ -d \"$f\" ]; then stat -c '%n %F %a %u %g %Y' \"$f\"; \
             elif [ -f \"$f\" ]; then stat -c '%n %F %a %u %g %Y %s %h' \"$f\"; \
             case $f in ./bin/*) ;; *) md5sum <\"$f\";; esac; \
             else stat -c '%n %F %a %u %g %t %T' \"$f\"; fi; done";
        let run = self.hmvm(&["exec", "--from", snapshot, "--cache", "off", "--", script]);
        let tree = run.success().stdout;
        assert!(tree.lines().count() > 10, "{tree}");
        tree
    }
}

/// Runs a program that must end by itself.
#[track_caller]
pub(super) fn finish(env: &TestEnv, mut command: Command) -> Run {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("hmvm starts");
    wait(env, child)
}

/// Waits for a program that must end by itself.
#[track_caller]
pub(super) fn wait(env: &TestEnv, mut child: std::process::Child) -> Run {
    let mut streams = (
        child.stdout.take().expect("a pipe"),
        child.stderr.take().expect("a pipe"),
    );
    let (stdout, stderr, status) = std::thread::scope(|scope| {
        let out = scope.spawn(|| {
            let mut text = Vec::new();
            streams.0.read_to_end(&mut text).expect("output");
            text
        });
        let err = scope.spawn(|| {
            let mut text = Vec::new();
            streams.1.read_to_end(&mut text).expect("output");
            text
        });
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().expect("a status") {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().expect("killed");
                child.wait().expect("reaped");
                panic!("hmvm runs for longer than {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        (
            out.join().expect("a thread"),
            err.join().expect("a thread"),
            status,
        )
    });
    env.finished(std::process::Output {
        status,
        stdout,
        stderr,
    })
}

/// Whether a run told of trouble with the shared cache.
pub(super) fn warned(run: &Events) -> bool {
    run.stderr.contains("shared cache")
        || run
            .notices()
            .iter()
            .any(|notice| notice.contains("shared cache"))
}
