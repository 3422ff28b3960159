//! What tests on real engines share.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "what cannot be set up is a failed test"
)]
#![expect(dead_code, reason = "each test binary uses some of it")]

mod harness;
mod proxy;

use std::path::Path;
use std::time::Duration;

pub(crate) use harness::ContainerHarness;
use hm_vm_docker::{DockerBackend, DockerOptions, Endpoint, PullPolicy};
use hm_vm_testkit::engines::TestEngine;
pub(crate) use proxy::Proxy;

/// Label of all that belongs to an owner, as users may know it.
const OWNER: &str = "io.hm-vm.owner";

/// A backend that pulls nothing.
pub(crate) fn open(socket: &Path, state: &Path) -> DockerBackend {
    let mut options = DockerOptions::default();
    options.endpoint = Some(Endpoint::Unix(socket.to_owned()));
    options.state = Some(state.to_owned());
    options.pull = PullPolicy::Never;
    DockerBackend::open(options).expect("a backend")
}

/// The owner that a state directory names.
pub(crate) fn owner(state: &Path) -> String {
    let owner = std::fs::read_to_string(state.join("owner")).expect("an owner");
    owner.trim().to_owned()
}

/// What the engine has of an owner. Directories that outlive VMs by their purpose are left out.
pub(crate) fn held(engine: &TestEngine, owner: &str) -> Vec<String> {
    let filter = format!("label={OWNER}={owner}");
    let list = |what: &[&str], format: &str| {
        let mut arguments = what.to_vec();
        arguments.extend(["--filter", &filter, "--format", format]);
        let listed = engine.docker_client(&arguments).expect("a list");
        let lines: Vec<String> = listed.lines().map(str::to_owned).collect();
        lines
    };
    let mut found = list(&["ps", "--all"], "container {{.Names}}");
    let image = "image {{.Repository}}:{{.Tag}} {{.ID}}";
    found.extend(list(&["images", "--all"], image));
    let cache = format!("volume hm-vm-{owner}-cache-");
    let volumes = list(&["volume", "ls"], "volume {{.Name}}").into_iter();
    found.extend(volumes.filter(|volume| !volume.starts_with(&cache)));
    found.extend(list(&["network", "ls"], "network {{.Name}}"));
    found
}

/// Removes all that the engine has of an owner, whatever state it is in.
pub(crate) fn remove_all(engine: &TestEngine, owner: &str) {
    let filter = format!("label={OWNER}={owner}");
    let kinds: [(&[&str], &[&str]); 3] = [
        (&["ps", "--all"], &["rm", "--force", "--volumes"]),
        (&["images"], &["rmi", "--force"]),
        (&["volume", "ls"], &["volume", "rm", "--force"]),
    ];
    for (list, remove) in kinds {
        let list = [list, &["--quiet", "--filter", &filter]].concat();
        let listed = engine.docker_client(&list).unwrap_or_default();
        let mut arguments = remove.to_vec();
        arguments.extend(listed.split_whitespace());
        if arguments.len() > remove.len() {
            let _ = engine.docker_client(&arguments);
        }
    }
}

/// Waits until `find` finds nothing, and fails with what it found last after a minute.
pub(crate) fn until(what: &str, mut find: impl FnMut() -> Vec<String>) {
    let mut found = Vec::new();
    for _ in 0..1200 {
        found = find();
        if found.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: {found:#?}");
}
