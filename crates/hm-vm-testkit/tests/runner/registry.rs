//! The registry of tests, and the daemon: do they do what tests rely on?

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

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
    assert!(TcpStream::connect(&address).is_err());
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
    let listed = Command::new("tar")
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

#[test]
fn a_server_outlives_the_thread_that_started_it() {
    require!(need_registry());
    let start = || RegistryServer::start(RegistrySetup::default()).unwrap();
    let server = std::thread::spawn(start).join().unwrap();
    assert_eq!(server.requests().unwrap(), []);
}

/// Not a test: what the next one kills.
#[test]
#[ignore = "runs for ever: it is the process that another test kills"]
fn killed_while_a_server_runs() {
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    println!("\naddress {}", server.address());
    drop(std::io::stdin().read_to_end(&mut Vec::new()));
}

#[test]
fn a_killed_test_leaves_no_server() {
    require!(need_registry());
    let root = TestRoot::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("registry::killed_while_a_server_runs")
        // It cannot clean up.
        .env("HMVM_TEST_TMPDIR", root.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let address = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("address ").map(str::to_owned))
        .unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    let long = Duration::from_secs(60);
    connection.set_read_timeout(Some(long)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // The connection ends with the server.
    let end = connection.read(&mut [0]).map_err(|error| error.kind());
    assert!(
        matches!(end, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)),
        "{end:?}"
    );
}
