//! Blobs that are written in spite of what happens, and those that are not.

use std::cell::Cell;
use std::io::{self, Read};

use hm_vm_core::{CancelCause, Cancellation, Progress, ProgressUnit};
use hm_vm_oci::{Destination as _, OciError, RegistryOptions};
use hm_vm_testkit::registry::{
    Fault, FaultProxy, Faults, RegistryServer, RegistrySetup, Rule, need_registry,
};
use hm_vm_testkit::require;

use super::support::*;

const UPLOADS: &str = "/v2/o/r/blobs/uploads/*";

fn start() -> (RegistryServer, FaultProxy) {
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    let proxy = FaultProxy::start(server.address(), Faults::none()).unwrap();
    (server, proxy)
}

#[test]
fn an_upload_that_fails_begins_again() {
    require!(need_registry());
    let (server, proxy) = start();
    let puts = |fault: Fault| Rule::new(UPLOADS, fault).method("PUT").once();
    let rules = [
        puts(Fault::CutRequestAfter(1 << 20)),
        puts(Fault::status(500)),
        puts(Fault::too_many_requests(0)),
        Rule::new(UPLOADS, Fault::status(503)).method("POST").once(),
    ];
    for (number, rule) in rules.into_iter().enumerate() {
        proxy.set(faults([rule]));
        let bytes = content((3 << 20) + number);
        let blob = put(&repository(&proxy.address()), &bytes).unwrap();
        assert!(read(&repository(server.address()), &blob).unwrap() == bytes);
    }
    let stalled = puts(Fault::StallRequestAfter(1 << 20));
    proxy.set(faults([stalled]));
    let bytes = content(12 << 20);
    let repository = client(impatient()).repository(&reference(&proxy.address()));
    put(&repository, &bytes).unwrap();
}

#[test]
fn cancellation_ends_a_stalled_upload() {
    require!(need_registry());
    let (_server, proxy) = start();
    let stalled = Rule::new(UPLOADS, Fault::StallRequestAfter(1 << 20)).method("PUT");
    proxy.set(faults([stalled]));
    let cancel = Cancellation::new();
    let options = RegistryOptions {
        cancel: cancel.clone(),
        idle_timeout: std::time::Duration::from_secs(3600),
        ..options()
    };
    let repository = client(options).repository(&reference(&proxy.address()));
    std::thread::scope(|scope| {
        let bytes = vec![0; 12 << 20];
        let repository = &repository;
        let waiting = scope.spawn(move || put(repository, &bytes));
        while !proxy.requests().iter().any(|request| request.sent > 0) {
            std::thread::yield_now();
        }
        cancel.cancel(CancelCause::User);
        let error = waiting.join().unwrap().unwrap_err();
        assert!(is_cancelled(&error), "{error}");
    });
}

#[test]
fn what_a_full_registry_says_is_told() {
    require!(need_registry());
    let (_server, proxy) = start();
    let repository = client(impatient()).repository(&reference(&proxy.address()));
    let bytes = content(1 << 20);
    for (status, part) in [
        (413, "too large"),
        (507, "no space left"),
        (429, "asked too often"),
        (403, "403"),
    ] {
        for method in ["POST", "PUT"] {
            let rule = Rule::new(UPLOADS, Fault::status(status)).method(method);
            proxy.set(faults([rule]));
            let error = put(&repository, &bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn a_registry_that_is_read_only_says_so() {
    require!(need_registry());
    let setup = RegistrySetup {
        read_only: true,
        ..RegistrySetup::default()
    };
    let server = RegistryServer::start(setup).unwrap();
    let error = put(&repository(server.address()), b"x").unwrap_err();
    assert!(error.to_string().contains("405"), "{error}");
}

#[test]
fn progress_counts_bytes() {
    require!(need_registry());
    let (_server, proxy) = start();
    let cut = Rule::new(UPLOADS, Fault::CutRequestAfter(1 << 20)).method("PUT");
    proxy.set(faults([cut.once()]));
    let repository = repository(&proxy.address());
    let bytes = content(2 << 20);
    for _ in 0..2 {
        let progress = Progress::new();
        let opened = Cell::new(0);
        let open = || -> io::Result<Box<dyn Read + Send>> {
            opened.set(opened.get() + 1);
            Ok(Box::new(io::Cursor::new(bytes.clone())))
        };
        repository
            .put_blob(&layer(&bytes), &open, &progress)
            .unwrap();
        let now = progress.now();
        assert_eq!((now.unit, now.done), (ProgressUnit::Bytes, 2 << 20));
        assert_eq!(now.total, Some(2 << 20));
        // Twice the first time, and not at all when it is there.
        assert!(matches!(opened.get(), 0 | 2));
    }
}

#[test]
fn a_failure_of_our_own_is_not_tried_again() {
    require!(need_registry());
    let (server, proxy) = start();
    let repository = repository(&proxy.address());
    let bytes = content(1 << 20);
    let blob = layer(&bytes);
    let put = |open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>| {
        let opened = Cell::new(0);
        let counted = || {
            opened.set(opened.get() + 1);
            open()
        };
        let error = repository
            .put_blob(&blob, &counted, &Progress::new())
            .unwrap_err();
        assert_eq!(opened.get(), 1);
        error
    };
    let error = put(&|| Err(io::Error::other("gone")));
    assert!(matches!(error, OciError::Io { .. }), "{error}");
    let error = put(&|| Ok(Box::new(io::Cursor::new(bytes[1..].to_vec()))));
    assert!(error.to_string().contains("shorter"), "{error}");
    let error = put(&|| Ok(Box::new(io::Cursor::new([&bytes[..], b"x"].concat()))));
    assert!(error.to_string().contains("longer"), "{error}");
    // The registry finds this one out.
    let error = put(&|| {
        Ok(Box::new(io::Cursor::new(
            content(1 << 21)[..1 << 20].to_vec(),
        )))
    });
    assert!(error.to_string().contains("400"), "{error}");
    assert!(server.blobs().unwrap().is_empty());
}

#[test]
fn a_blob_of_another_repository_does_not_travel() {
    require!(need_registry());
    let (server, proxy) = start();
    let client = client(options());
    let from = format!("{}/other/x:t", proxy.address()).parse().unwrap();
    let blob = put(&client.repository(&from), b"layer").unwrap();
    proxy.forget();
    let to = client
        .repository(&reference(&proxy.address()))
        .mounting(&from);
    put(&to, b"layer").unwrap();
    let requests = proxy.requests();
    assert!(requests.iter().all(|request| request.method != "PUT"));
    assert!(read(&repository(server.address()), &blob).unwrap() == b"layer");
    // What is not there either is written.
    let blob = put(&to, b"new").unwrap();
    assert!(read(&to, &blob).unwrap() == b"new");
    // A place that may not be read is none.
    let refusing = Rule::new("*mount=*", Fault::status(403)).method("POST");
    proxy.set(faults([refusing]));
    let blob = put(&to, b"newer").unwrap();
    assert!(read(&to, &blob).unwrap() == b"newer");
}

#[test]
fn a_manifest_that_is_stored_otherwise_is_no_success() {
    require!(need_registry());
    let (_server, proxy) = start();
    let repository = client(RegistryOptions {
        retries: 0,
        ..options()
    })
    .repository(&reference(&proxy.address()));
    let manifest = manifest(
        &put(&repository, b"{}").unwrap(),
        &put(&repository, b"layer").unwrap(),
    );
    let lying = Rule::new("/v2/o/r/manifests/*", Fault::wrong_digest());
    proxy.set(faults([lying]));
    let error = repository.put_manifest("t", &manifest).unwrap_err();
    assert!(matches!(error, OciError::Mismatch { .. }), "{error}");
    proxy.set(Faults::none());
    repository.put_manifest("t", &manifest).unwrap();
}
