//! Mirrors, and proxies on the way.

use hm_vm_oci::{HostOptions, OciError, Proxies, RegistryOptions, Source as _};
use hm_vm_testkit::registry::{
    Fault, FaultProxy, Faults, RegistryServer, RegistrySetup, Rule, need_registry,
};
use hm_vm_testkit::require;

use super::support::*;

fn with_mirrors(address: &str, mirrors: &[&str]) -> RegistryOptions {
    let host = HostOptions {
        mirrors: mirrors.iter().map(|&mirror| mirror.to_owned()).collect(),
        ..HostOptions::default()
    };
    let mut options = impatient();
    options.hosts.insert(address.to_owned(), host);
    options
}

#[test]
fn mirrors_are_asked_first_and_the_registry_last() {
    require!(need_registry());
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    let bytes = content(3 << 20);
    let (manifest, layer) = put_image(&repository(server.address()), &bytes);
    let registry = FaultProxy::start(server.address(), Faults::none()).unwrap();
    let mirror = FaultProxy::start(server.address(), Faults::none()).unwrap();
    let empty = RegistryServer::start(RegistrySetup::default()).unwrap();
    let mut dead = FaultProxy::start("127.0.0.1:1", Faults::none()).unwrap();
    dead.refuse();
    let read_all = |mirrors: &[&str]| {
        registry.forget();
        mirror.forget();
        let client = client(with_mirrors(&registry.address(), mirrors));
        let repository = client.repository(&reference(&registry.address()));
        assert_eq!(repository.root().unwrap(), manifest);
        assert!(read(&repository, &layer).unwrap() == bytes);
        (mirror.requests().len(), registry.requests().len())
    };
    let good = mirror.address();
    assert_eq!(read_all(&[&good]), (2, 0));
    assert_eq!(read_all(&[&dead.address(), empty.address(), &good]), (2, 0));
    assert_eq!(read_all(&[&dead.address(), empty.address()]), (0, 2));
    assert_eq!(read_all(&[&format!("http://{good}/")]), (2, 0));
    // Under a prefix, there is nothing.
    assert_eq!(read_all(&[&format!("{good}/prefix")]), (2, 2));
    for fault in [Fault::Stall, Fault::status(500), Fault::wrong_digest()] {
        mirror.set(faults([Rule::new("/v2/*/manifests/*", fault)]));
        assert!(read_all(&[&good]).1 > 0);
    }
    // Where the mirror breaks off, the registry goes on.
    mirror.set(faults([of_blobs(Fault::CutAfter(1 << 20))]));
    assert_eq!(read_all(&[&good]), (2, 1));
    let requests = registry.requests();
    assert_eq!(requests[0].header("range"), Some("bytes=1048576-"));
}

#[test]
fn what_is_written_goes_to_the_registry() {
    require!(need_registry());
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    let mirror = FaultProxy::start("127.0.0.1:1", Faults::none()).unwrap();
    let options = with_mirrors(server.address(), &[&mirror.address()]);
    put_image(
        &client(options).repository(&reference(server.address())),
        b"layer",
    );
    assert!(mirror.requests().is_empty());
}

#[test]
fn proxies_lie_on_the_way_to_others() {
    let manifest = answer(200, &[], b"{}");
    let proxy = FaultProxy::start("127.0.0.1:1", faults([Rule::new("*", manifest)])).unwrap();
    let plain = HostOptions {
        plain_http: true,
        ..HostOptions::default()
    };
    let through = |proxies: Proxies, registry: &str| {
        proxy.forget();
        let mut options = RegistryOptions {
            proxies,
            ..impatient()
        };
        options
            .hosts
            .insert("plain.invalid".to_owned(), plain.clone());
        let repository = client(options).repository(&reference(registry));
        (repository.root().map(|_| ()), proxy.requests())
    };
    let address = format!("http://me:hidden@{}", proxy.address());
    let http = Proxies {
        http: Some(address.clone()),
        ..Proxies::default()
    };
    let (outcome, requests) = through(http.clone(), "plain.invalid");
    outcome.unwrap();
    assert_eq!(requests[0].path, "http://plain.invalid/v2/o/r/manifests/t");
    assert!(requests[0].header("proxy-authorization").is_some());
    assert!(!format!("{http:?}").contains("hidden"));
    let all = Proxies {
        all: Some(address.clone()),
        ..Proxies::default()
    };
    through(all.clone(), "plain.invalid").0.unwrap();
    // An encrypted connection is asked for, and refused here.
    let (outcome, requests) = through(all.clone(), "secure.invalid");
    let error = outcome.unwrap_err();
    assert!(matches!(error, OciError::Unreachable { .. }), "{error}");
    assert!(!error.to_string().contains("hidden"), "{error}");
    assert_eq!(
        requests.first().map(|request| request.method.as_str()),
        Some("CONNECT")
    );
    // Loopback, and what is excepted, is reached without.
    let (outcome, requests) = through(all.clone(), "127.0.0.1:1");
    assert!(outcome.is_err() && requests.is_empty());
    let except = Proxies {
        no_proxy: Some("other, .invalid".to_owned()),
        ..all
    };
    let (outcome, requests) = through(except, "plain.invalid");
    assert!(outcome.is_err() && requests.is_empty());
}

#[test]
fn a_foreign_layer_is_read_from_where_it_lies() {
    require!(need_registry());
    let registry = RegistryServer::start(RegistrySetup::default()).unwrap();
    let elsewhere = RegistryServer::start(RegistrySetup {
        tls: true,
        ..RegistrySetup::default()
    })
    .unwrap();
    let trusting = HostOptions {
        roots: vec![elsewhere.authority()],
        ..HostOptions::default()
    };
    let bytes = content(1 << 20);
    let mut options = impatient();
    options
        .hosts
        .insert(elsewhere.address().to_owned(), trusting.clone());
    let blob = put(
        &client(options).repository(&reference(elsewhere.address())),
        &bytes,
    )
    .unwrap();
    let place = format!("{}/v2/o/r/blobs/{}", elsewhere.address(), blob.digest);
    let mut options = impatient();
    options
        .hosts
        .insert(elsewhere.address().to_owned(), trusting);
    let repository = client(options).repository(&reference(registry.address()));
    let foreign = |urls: &[String]| {
        let mut foreign = blob.clone();
        foreign.urls = urls.to_vec();
        read(&repository, &foreign)
    };
    assert!(matches!(foreign(&[]), Err(OciError::NotFound { .. })));
    // Without encryption, nobody is asked.
    let plain = format!("http://{place}");
    assert!(matches!(
        foreign(std::slice::from_ref(&plain)),
        Err(OciError::NotFound { .. })
    ));
    assert!(foreign(&[plain, format!("https://{place}")]).unwrap() == bytes);
}
