//! Servers that speak TLS, and those that do not.

use std::path::PathBuf;

use hm_vm_oci::{HostOptions, OciError, RegistryClient, RegistryOptions, Source as _};
use hm_vm_testkit::registry::{RegistryServer, RegistrySetup, need_registry};
use hm_vm_testkit::require;

use super::support::*;

fn start() -> RegistryServer {
    let setup = RegistrySetup {
        tls: true,
        ..RegistrySetup::default()
    };
    RegistryServer::start(setup).unwrap()
}

fn trusting(name: &str, roots: &[PathBuf]) -> RegistryOptions {
    let host = HostOptions {
        roots: roots.to_vec(),
        ..HostOptions::default()
    };
    let mut options = RegistryOptions {
        retries: 0,
        ..options()
    };
    options.hosts.insert(name.to_owned(), host);
    options
}

#[test]
fn extra_roots_are_trusted_by_their_host_alone() {
    require!(need_registry());
    let server = start();
    let by_name = format!("localhost:{}", server.port());
    let with_roots = client(trusting(server.address(), &[server.authority()]));
    let repository = with_roots.repository(&reference(server.address()));
    let bytes = content(2 << 20);
    let (manifest, layer) = put_image(&repository, &bytes);
    assert_eq!(repository.root().unwrap(), manifest);
    assert!(read(&repository, &layer).unwrap() == bytes);
    // The same server by another name.
    let other = with_roots.repository(&reference(&by_name));
    let error = other.root().unwrap_err();
    assert!(matches!(error, OciError::Unreachable { .. }), "{error}");
    let client = client(trusting(&by_name, &[server.authority()]));
    assert_eq!(
        client.repository(&reference(&by_name)).root().unwrap(),
        manifest
    );
}

#[test]
fn a_stranger_is_not_trusted() {
    require!(need_registry());
    let (server, other) = (start(), start());
    for roots in [vec![], vec![other.authority()]] {
        let client = client(trusting(server.address(), &roots));
        let error = client
            .repository(&reference(server.address()))
            .root()
            .unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, OciError::Unreachable { .. }), "{text}");
        assert!(text.contains("certificate"), "{text}");
    }
}

#[test]
fn certificates_that_cannot_be_read_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let ask = || {
        let client = client(trusting("127.0.0.1:1", std::slice::from_ref(&file)));
        client
            .repository(&reference("127.0.0.1:1"))
            .root()
            .unwrap_err()
    };
    assert!(ask().to_string().contains("ca.pem"));
    std::fs::write(&file, "nothing").unwrap();
    assert!(ask().to_string().contains("there are none"));
}

#[test]
fn what_is_not_loopback_must_be_encrypted() {
    require!(need_registry());
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    // Every address of 127.0.0.0/8 is this machine.
    let plain = HostOptions {
        plain_http: true,
        ..HostOptions::default()
    };
    let name = format!("127.0.0.1:{}", server.port());
    let mut options = options();
    options.hosts.insert(name.clone(), plain);
    put_image(&client(options).repository(&reference(&name)), b"layer");
    let mirror = HostOptions {
        mirrors: vec!["http://mirror.example".to_owned()],
        ..HostOptions::default()
    };
    let mut options = RegistryOptions::default();
    options.hosts.insert("docker.io".to_owned(), mirror);
    let error = RegistryClient::new(options).unwrap_err();
    assert!(error.to_string().contains("without encryption"), "{error}");
}
