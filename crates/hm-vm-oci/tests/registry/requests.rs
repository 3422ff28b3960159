//! Images there and back, and what that costs.

use hm_vm_oci::{Destination as _, OciError, Reference, Source as _};
use hm_vm_testkit::registry::{FaultProxy, Faults, RegistryServer, RegistrySetup, need_registry};
use hm_vm_testkit::require;

use super::support::*;

#[test]
fn what_is_written_is_read_again() {
    require!(need_registry());
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    let repository = repository(server.address());
    let bytes = content(3 << 20);
    let (manifest, layer) = put_image(&repository, &bytes);
    assert_eq!(repository.root().unwrap(), manifest);
    assert!(read(&repository, &layer).unwrap() == bytes);
    assert!(repository.has(&layer).unwrap());
    assert!(!repository.has(&super::support::layer(b"other")).unwrap());

    let by_digest = manifest.digest.to_string();
    assert_eq!(repository.manifest(&by_digest).unwrap().unwrap(), manifest);
    assert_eq!(repository.manifest("other").unwrap(), None);
    let pinned: Reference = format!("{}/o/r:no@{by_digest}", server.address())
        .parse()
        .unwrap();
    let client = client(options());
    assert_eq!(client.source(&pinned).root().unwrap(), manifest);
    let absent: Reference = format!("{}/o/r:no", server.address()).parse().unwrap();
    let missing = client.source(&absent).root().unwrap_err();
    assert!(matches!(missing, OciError::NotFound { .. }), "{missing}");
    let missing = client.source(&absent).open(&super::support::layer(b"no"));
    assert!(matches!(missing, Err(OciError::NotFound { .. })));
}

#[test]
fn an_empty_blob_is_a_blob() {
    require!(need_registry());
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    let repository = repository(server.address());
    let blob = put(&repository, b"").unwrap();
    assert!(read(&repository, &blob).unwrap().is_empty());
}

#[test]
fn nothing_is_asked_that_need_not_be() {
    require!(need_registry());
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    let proxy = FaultProxy::start(server.address(), Faults::none()).unwrap();
    let repository = repository(&proxy.address());
    let (_, layer) = put_image(&repository, b"layer");
    proxy.forget();
    repository.root().unwrap();
    read(&repository, &layer).unwrap();
    let methods: Vec<_> = proxy
        .requests()
        .into_iter()
        .map(|request| request.method)
        .collect();
    assert_eq!(methods, ["GET", "GET"]);
    proxy.forget();
    put(&repository, b"layer").unwrap();
    let methods: Vec<_> = proxy
        .requests()
        .into_iter()
        .map(|request| request.method)
        .collect();
    assert_eq!(methods, ["HEAD"]);
    proxy.forget();
    put(&repository, b"another").unwrap();
    let methods: Vec<_> = proxy
        .requests()
        .into_iter()
        .map(|request| request.method)
        .collect();
    assert_eq!(methods, ["HEAD", "POST", "PUT"]);
}

#[test]
fn many_threads_share_a_client() {
    require!(need_registry());
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    let repository = repository(server.address());
    std::thread::scope(|scope| {
        for number in 0..8_usize {
            let repository = &repository;
            scope.spawn(move || {
                let bytes = content((1 << 20) + number);
                let blob = put(repository, &bytes).unwrap();
                assert!(read(repository, &blob).unwrap() == bytes);
            });
        }
    });
}

#[test]
fn it_may_be_used_and_dropped_within_another_runtime() {
    require!(need_registry());
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let address = server.address().to_owned();
    let work = runtime.spawn(async move {
        let repository = repository(&address);
        let blob = put(&repository, b"layer").unwrap();
        read(&repository, &blob).unwrap()
    });
    assert_eq!(runtime.block_on(work).unwrap(), b"layer");
}
