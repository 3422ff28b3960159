//! The registry of tests, and the daemon: do they do what tests rely on?

use std::fs;

use hm_vm_testkit::registry::{
    DockerDaemon, RegistryServer, RegistrySetup, Request, TestImage, need_registry,
};
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;

/// A small image of two layers.
fn small(root: &TestRoot) -> TestImage {
    let image = TestImage::empty(&root.join("layout")).unwrap();
    for name in ["one", "two"] {
        let tree = root.join(name);
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join(name), name).unwrap();
        image.add_tree(&tree, "/").unwrap();
    }
    image
}

fn push_and_look(setup: RegistrySetup) -> (RegistryServer, Vec<Request>) {
    let root = TestRoot::new().unwrap();
    let server = RegistryServer::start(setup).unwrap();
    small(&root).push(&server, "some/image:tag").unwrap();
    let requests = server.requests().unwrap();
    (server, requests)
}

#[test]
fn an_open_registry_takes_an_image_and_tells_what_it_was_asked() {
    require!(need_registry());
    require!(TestImage::need_tools());
    let (mut server, requests) = push_and_look(RegistrySetup::default());
    let stored = |what: fn(&Request) -> bool| requests.iter().filter(|one| what(one)).count();
    // Two layers and the configuration.
    assert_eq!(stored(Request::stored_blob), 3, "{requests:?}");
    assert_eq!(stored(Request::stored_manifest), 1, "{requests:?}");
    assert_eq!(server.tags("some/image").unwrap(), ["tag"]);
    let blobs = server.blobs().unwrap();
    assert_eq!(blobs.len(), 4);
    assert!(blobs.iter().all(|digest| server.blob(digest).is_file()));

    let address = server.address().to_owned();
    server.stop();
    assert!(std::net::TcpStream::connect(&address).is_err());
    server.restart().unwrap();
    assert_eq!(server.address(), address);
    assert_eq!(server.requests().unwrap(), requests);
}

#[test]
fn a_registry_with_tls_and_a_password_takes_an_image() {
    require!(need_registry());
    require!(TestImage::need_tools());
    let (server, requests) = push_and_look(RegistrySetup {
        htpasswd: true,
        tls: true,
        ..RegistrySetup::default()
    });
    assert_eq!(server.tags("some/image").unwrap(), ["tag"]);
    assert!(requests.iter().any(|request| request.status == 401));
    let authority = fs::read_to_string(server.authority()).unwrap();
    assert!(authority.contains("BEGIN CERTIFICATE"));
}

#[test]
fn a_read_only_registry_takes_nothing() {
    require!(need_registry());
    require!(TestImage::need_tools());
    let root = TestRoot::new().unwrap();
    let server = RegistryServer::start(RegistrySetup {
        read_only: true,
        ..RegistrySetup::default()
    })
    .unwrap();
    small(&root).push(&server, "some/image:tag").unwrap_err();
    assert_eq!(server.blobs().unwrap(), [""; 0]);
}

#[test]
fn a_daemon_of_ones_own_shows_the_files_of_an_image() {
    require!(need_registry());
    require!(TestImage::need_tools());
    require!(DockerDaemon::need());
    let root = TestRoot::new().unwrap();
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    small(&root).push(&server, "some/image:tag").unwrap();
    let daemon = DockerDaemon::start().unwrap();
    let name = format!("{}/some/image:tag", server.address());
    daemon.docker(&["pull", "--quiet", &name]).unwrap();
    daemon.tree(&name, &root.join("tree.tar")).unwrap();
    let listed = std::process::Command::new("tar")
        .arg("-tf")
        .arg(root.join("tree.tar"))
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.contains("one\n") && listed.contains("two\n"),
        "{listed}"
    );
}
