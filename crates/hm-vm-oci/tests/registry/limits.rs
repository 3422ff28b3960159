//! Manifests that lie, never end, or lead elsewhere.

use hm_vm_core::Cancellation;
use hm_vm_oci::{MAX_MANIFEST_BYTES, OciError, RegistryOptions, media};
use hm_vm_testkit::registry::{Fault, FaultProxy, Faults, Rule};

use super::support::*;

const MANIFESTS: &str = "/v2/o/r/manifests/*";

/// A server that is not there gives this answer to whoever asks for a manifest.
fn serving(fault: Fault) -> FaultProxy {
    FaultProxy::start("127.0.0.1:1", faults([Rule::new(MANIFESTS, fault)])).unwrap()
}

fn ask(proxy: &FaultProxy, name: &str) -> OciError {
    let client = client(impatient());
    let repository = client.repository(&reference(&proxy.address()));
    repository.manifest(name).unwrap_err()
}

#[test]
fn manifests_are_bounded() {
    let type_of = [("Content-Type", media::MANIFEST)];
    let most = usize::try_from(MAX_MANIFEST_BYTES).unwrap();
    let proxy = serving(answer(200, &type_of, &vec![b' '; most]));
    let repository = repository(&proxy.address());
    let manifest = repository.manifest("t").unwrap().unwrap();
    assert_eq!(manifest.bytes.len(), most);
    proxy.set(faults([Rule::new(
        MANIFESTS,
        answer(200, &type_of, &vec![b' '; most + 1]),
    )]));
    let error = ask(&proxy, "t");
    assert!(error.to_string().contains("more than"), "{error}");
}

#[test]
fn a_manifest_without_end_is_refused() {
    let server = serving(answer(200, &[("Content-Type", media::MANIFEST)], b"{}"));
    let endless = faults([Rule::new(MANIFESTS, Fault::Endless)]);
    let proxy = FaultProxy::start(&server.address(), endless).unwrap();
    let error = ask(&proxy, "t");
    assert!(error.to_string().contains("more than"), "{error}");
}

#[test]
fn a_manifest_is_what_its_digest_says() {
    let asked = layer(b"{}").digest.to_string();
    let proxy = serving(answer(200, &[("Content-Type", media::MANIFEST)], b"{ }"));
    let error = ask(&proxy, &asked);
    assert!(matches!(error, OciError::Mismatch { .. }), "{error}");
    let told = [("Docker-Content-Digest", asked.as_str())];
    let proxy = serving(answer(200, &told, b"{ }"));
    let error = ask(&proxy, "t");
    assert!(matches!(error, OciError::Mismatch { .. }), "{error}");
    let proxy = serving(answer(200, &told, b"{}"));
    let manifest = repository(&proxy.address()).manifest("t").unwrap().unwrap();
    assert_eq!(manifest.digest.to_string(), asked);
}

#[test]
fn a_manifest_has_one_type() {
    let body = format!(r#"{{"mediaType": "{}"}}"#, media::INDEX);
    let serve = |told: &str| serving(answer(200, &[("Content-Type", told)], body.as_bytes()));
    let error = ask(&serve(media::MANIFEST), "t");
    assert!(matches!(error, OciError::Mismatch { .. }), "{error}");
    let with_parameters = format!("{}; charset=utf-8", media::INDEX);
    for told in [media::INDEX, &with_parameters, "application/json"] {
        let manifest = repository(&serve(told).address()).manifest("t");
        assert_eq!(manifest.unwrap().unwrap().media_type, media::INDEX);
    }
}

#[test]
fn redirects_are_followed_so_far_as_is_safe() {
    let target = serving(answer(200, &[("Content-Type", media::MANIFEST)], b"{}"));
    let place = format!("http://{}/v2/o/r/manifests/t", target.address());
    let to = |place: &str| serving(answer(307, &[("Location", place)], b""));
    let found = repository(&to(&place).address()).manifest("t").unwrap();
    assert_eq!(found.unwrap().bytes, b"{}");
    let refused = |place: &str, part: &str| {
        let error = ask(&to(place), "t").to_string();
        assert!(error.contains(part), "{place}: {error}");
    };
    refused("http://example.invalid/x", "without encryption");
    refused("file:///etc/passwd", "by file");
    refused("/v2/o/r/manifests/t", "too many redirects");
    let nowhere = serving(answer(307, &[], b""));
    let error = ask(&nowhere, "t").to_string();
    assert!(error.contains("where to go on"), "{error}");
}

#[test]
fn what_a_server_says_is_told() {
    let body = br#"{"errors": [{"code": "X", "message": "out of\u001b[2J order"}]}"#;
    let error = ask(&serving(answer(400, &[], body)), "t").to_string();
    assert!(
        error.contains("400 Bad Request: out of [2J order"),
        "{error}"
    );
    let error = ask(&serving(answer(403, &[], body)), "t");
    assert!(matches!(error, OciError::Denied { .. }), "{error}");
}

#[test]
fn nobody_is_waited_for_longer_than_said() {
    let proxy = serving(Fault::Stall);
    let error = ask(&proxy, "t");
    assert!(matches!(error, OciError::Unreachable { .. }), "{error}");
    // One try and one more.
    assert_eq!(proxy.requests().len(), 2);
    let mut proxy = FaultProxy::start("127.0.0.1:1", Faults::none()).unwrap();
    proxy.refuse();
    let error = ask(&proxy, "t");
    assert!(matches!(error, OciError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("no connection"), "{error}");
}

#[test]
fn cancellation_ends_every_wait() {
    let proxy = serving(Fault::Stall);
    let cancel = Cancellation::new();
    let options = RegistryOptions {
        cancel: cancel.clone(),
        idle_timeout: std::time::Duration::from_secs(3600),
        ..options()
    };
    let repository = client(options).repository(&reference(&proxy.address()));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| repository.manifest("t"));
        while proxy.requests().is_empty() {
            std::thread::yield_now();
        }
        cancel_when(&cancel, || true);
        let error = waiting.join().unwrap().unwrap_err();
        assert!(is_cancelled(&error), "{error}");
    });
}
