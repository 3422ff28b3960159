//! What tests on real engines share.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "what cannot be set up is a failed test"
)]
#![expect(dead_code, reason = "each test binary uses some of it")]

pub(crate) mod harness;
pub(crate) mod proxy;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::errors::Error::{DockerResponseServerError, JsonDataError};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};
use bollard::{ClientVersion, Docker};
use hm_vm_docker::{DockerBackend, DockerOptions, Endpoint, PullPolicy};
use hm_vm_testkit::engines::TestEngine;

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
    match runtime().block_on(held_by(engine, owner)) {
        Ok(held) => held,
        // Podman says of a container that is ending what the client has no word for.
        Err(JsonDataError { message, .. }) => vec![format!("what cannot be read: {message}")],
        // Or of an image that is being removed that it knows no such one.
        Err(DockerResponseServerError {
            status_code: 500,
            message,
        }) => vec![format!("what is going: {message}")],
        Err(error) => panic!("what is in the engine: {error}"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The engine's API.
fn api(engine: &TestEngine) -> Result<Docker, bollard::errors::Error> {
    // Both know this version. Asking Podman for its own lets it ask the machine's package manager.
    let version = ClientVersion {
        major_version: 1,
        minor_version: 41,
    };
    let socket = engine.socket().to_str().expect("a path that is text");
    Docker::connect_with_unix(socket, 120, &version)
}

/// Makes an image of a container, with the container's configuration. Not by the client: Podman does not take its empty request.
pub(crate) fn commit(
    engine: &TestEngine,
    container: &str,
    name: &str,
) -> Result<(), bollard::errors::Error> {
    let (repository, tag) = name.rsplit_once(':').expect("a tag");
    let options = CommitContainerOptionsBuilder::new();
    let options = options.container(container).repo(repository).tag(tag);
    let committed = async {
        let docker = api(engine)?;
        let config = docker.inspect_container(container, None).await?.config;
        let config = config.expect("a configuration");
        docker.commit_container(options.build(), config).await
    };
    std::thread::scope(|scope| {
        let committed = scope.spawn(|| runtime().block_on(committed).map(drop));
        committed.join().expect("no panic")
    })
}

async fn held_by(engine: &TestEngine, owner: &str) -> Result<Vec<String>, bollard::errors::Error> {
    let docker = api(engine)?;
    let filters = HashMap::from([("label", vec![format!("{OWNER}={owner}")])]);
    let containers = ListContainersOptionsBuilder::new().all(true);
    let containers = docker.list_containers(Some(containers.filters(&filters).build()));
    let mut found = Vec::new();
    for container in containers.await? {
        found.push(format!(
            "container {:?}",
            container.names.unwrap_or_default()
        ));
    }
    let images = ListImagesOptionsBuilder::new().all(true);
    let images = docker.list_images(Some(images.filters(&filters).build()));
    for image in images.await? {
        found.push(format!("image {:?} {}", image.repo_tags, image.id));
    }
    let volumes = ListVolumesOptionsBuilder::new().filters(&filters);
    let volumes = docker.list_volumes(Some(volumes.build())).await?.volumes;
    let cache = format!("hm-vm-{owner}-cache-");
    for volume in volumes.unwrap_or_default() {
        if !volume.name.starts_with(&cache) {
            found.push(format!("volume {}", volume.name));
        }
    }
    let networks = ListNetworksOptionsBuilder::new().filters(&filters);
    for network in docker.list_networks(Some(networks.build())).await? {
        found.push(format!("network {:?}", network.name));
    }
    Ok(found)
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
