//! Who may read and write: passwords, tokens, and where they come from.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hm_vm_oci::{CredentialFiles, OciError, RegistryOptions, media};
use hm_vm_testkit::registry::{
    FaultProxy, PASSWORD, RegistryServer, RegistrySetup, Rule, USER, need_registry,
};
use hm_vm_testkit::require;

use super::support::*;

/// A file with credentials, and options that name it.
struct Login {
    _dir: tempfile::TempDir,
    options: RegistryOptions,
}

impl Login {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        fs::write(&file, text).unwrap();
        let credentials = CredentialFiles::new([file], [PathBuf::from("/nowhere")]);
        let options = RegistryOptions {
            credentials,
            retries: 0,
            ..options()
        };
        Self { _dir: dir, options }
    }

    fn with_password(address: &str, user: &str, password: &str) -> Self {
        let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
        Self::new(&format!(
            r#"{{"auths": {{"{address}": {{"auth": "{auth}"}}}}}}"#
        ))
    }

    fn repository(&self, address: &str) -> hm_vm_oci::Repository {
        client(self.options.clone()).repository(&reference(address))
    }
}

#[test]
fn a_password_opens_a_registry() {
    require!(need_registry());
    let setup = RegistrySetup {
        htpasswd: true,
        ..RegistrySetup::default()
    };
    let server = RegistryServer::start(setup).unwrap();
    let address = server.address();
    let login = Login::with_password(address, USER, PASSWORD);
    let repository = login.repository(address);
    let bytes = content(2 << 20);
    let (manifest, layer) = put_image(&repository, &bytes);
    assert_eq!(repository.manifest("t").unwrap().unwrap(), manifest);
    assert!(read(&repository, &layer).unwrap() == bytes);

    let denied = |login: &Login| match login.repository(address).manifest("t").unwrap_err() {
        OciError::Denied { reason, .. } => reason,
        error => panic!("{error}"),
    };
    let reason = denied(&Login::with_password(address, USER, "hidden"));
    assert!(!reason.contains("hidden"), "{reason}");
    let reason = denied(&Login::new("{}"));
    assert!(reason.contains("there are no credentials"), "{reason}");
    let helper = Login::new(&format!(r#"{{"credHelpers": {{"{address}": "gone"}}}}"#));
    let reason = denied(&helper);
    assert!(
        reason.contains("there is no docker-credential-gone"),
        "{reason}"
    );
    let shown = format!("{:?}", login.repository(address));
    assert!(
        !shown.contains(PASSWORD) && !shown.contains("Basic"),
        "{shown}"
    );
}

#[test]
fn only_the_first_request_is_sent_without_a_password() {
    require!(need_registry());
    let setup = RegistrySetup {
        htpasswd: true,
        ..RegistrySetup::default()
    };
    let server = RegistryServer::start(setup).unwrap();
    let proxy = FaultProxy::start(server.address(), faults([])).unwrap();
    let login = Login::with_password(&proxy.address(), USER, PASSWORD);
    let repository = login.repository(&proxy.address());
    put_image(&repository, b"layer");
    let without = proxy.requests();
    let without = without.iter().filter(|request| request.status == 401);
    assert_eq!(without.count(), 1);
}

/// Answers every request with a body, and keeps what was asked: first line, headers and body.
struct TokenServer {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TokenServer {
    fn start(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut text = String::new();
                while !text.ends_with("\r\n\r\n") && reader.read_line(&mut text).unwrap() > 0 {}
                let lower = text.to_lowercase();
                let length = lower.split_once("content-length: ");
                let length =
                    length.map_or(0, |(_, rest)| rest.lines().next().unwrap().parse().unwrap());
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                text.push_str(std::str::from_utf8(&body).unwrap());
                let (status, answer) = answer(&text);
                seen.lock().unwrap().push(text);
                let length = answer.len();
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                let _ = stream.write_all(format!("{head}{answer}").as_bytes());
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// A registry that gives a manifest for the token `good`, and names this server to everybody else.
    fn registry(&self) -> FaultProxy {
        let challenge = format!(
            r#"Bearer realm="http://{}/token",service="the service",scope="x""#,
            self.address
        );
        let wanted = answer(401, &[("WWW-Authenticate", &challenge)], b"");
        let manifest = answer(200, &[("Content-Type", media::MANIFEST)], b"{}");
        let rules = [
            Rule::new("/v2/*", wanted).unless_header("Authorization", "Bearer good"),
            Rule::new("/v2/*/manifests/*", manifest),
        ];
        FaultProxy::start("127.0.0.1:1", faults(rules)).unwrap()
    }
}

#[test]
fn tokens_are_asked_for_once_per_purpose() {
    let tokens =
        TokenServer::start(|_| (200, r#"{"token": "good", "expires_in": 300}"#.to_owned()));
    let registry = tokens.registry();
    let login = Login::with_password(&registry.address(), "me", "hidden");
    let repository = login.repository(&registry.address());
    for _ in 0..3 {
        repository.manifest("t").unwrap().unwrap();
    }
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1);
    let line = asked[0].lines().next().unwrap();
    assert!(
        line.starts_with("GET /token?service=the+service&scope=repository%3Ao%2Fr%3Apull&"),
        "{line}"
    );
    let basic = BASE64_STANDARD.encode("me:hidden");
    assert!(asked[0].contains(&format!("Basic {basic}")));
    assert_eq!(registry.requests().len(), 4);
    // Another purpose, another token.
    let _ = put(&repository, b"x");
    assert!(tokens.asked()[1].contains("pull%2Cpush"));
}

#[test]
fn tokens_are_given_to_nobody_in_particular() {
    let tokens = TokenServer::start(|_| (200, r#"{"access_token": "good"}"#.to_owned()));
    let registry = tokens.registry();
    let repository = repository(&registry.address());
    repository.manifest("t").unwrap().unwrap();
    assert!(!tokens.asked()[0].to_lowercase().contains("authorization"));
}

#[test]
fn a_token_that_is_refused_is_replaced() {
    let answers = Mutex::new(vec!["good", "bad"]);
    let tokens = TokenServer::start(move |_| {
        let token = answers.lock().unwrap().pop().unwrap_or("good");
        (200, format!(r#"{{"token": "{token}", "expires_in": 300}}"#))
    });
    let registry = tokens.registry();
    let repository = Login::new("{}").repository(&registry.address());
    let error = repository.manifest("t").unwrap_err();
    assert!(matches!(error, OciError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("no credentials for"), "{error}");
    repository.manifest("t").unwrap().unwrap();
    assert_eq!(tokens.asked().len(), 2);
}

#[test]
fn an_identity_token_is_posted() {
    let tokens = TokenServer::start(|_| (200, r#"{"access_token": "good"}"#.to_owned()));
    let registry = tokens.registry();
    let address = registry.address();
    let login = Login::new(&format!(
        r#"{{"auths": {{"{address}/o": {{"identitytoken": "a&b"}}, "{address}": {{"auth": "eDp5"}}}}}}"#
    ));
    login.repository(&address).manifest("t").unwrap().unwrap();
    let asked = &tokens.asked()[0];
    assert!(asked.starts_with("POST /token "), "{asked}");
    let body = "grant_type=refresh_token&service=the+service&client_id=hm-vm&\
                scope=repository%3Ao%2Fr%3Apull&refresh_token=a%26b";
    assert!(asked.ends_with(body), "{asked}");
    assert!(!asked.to_lowercase().contains("authorization"));
}

#[test]
fn what_a_token_server_refuses_is_denied() {
    let body = r#"{"details": "incorrect username or password"}"#;
    let tokens = TokenServer::start(move |_| (401, body.to_owned()));
    let registry = tokens.registry();
    let login = Login::with_password(&registry.address(), "me", "hidden");
    let error = login
        .repository(&registry.address())
        .manifest("t")
        .unwrap_err();
    assert!(matches!(error, OciError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("incorrect username"), "{error}");
    for nonsense in ["", "[]", "{}", r#"{"token": "a\nb"}"#] {
        let tokens = TokenServer::start(move |_| (200, nonsense.to_owned()));
        let registry = tokens.registry();
        let error = repository(&registry.address()).manifest("t");
        assert!(error.is_err(), "{nonsense}");
    }
}

#[test]
fn nobody_else_learns_who_we_are() {
    require!(need_registry());
    let other = FaultProxy::start(
        "127.0.0.1:1",
        faults([Rule::new("*", answer(200, &[], b"elsewhere"))]),
    )
    .unwrap();
    let place = format!("http://{}/x", other.address());
    let challenge = [("WWW-Authenticate", "Basic realm=\"x\"")];
    let basic = format!("Basic {}", BASE64_STANDARD.encode("me:hidden"));
    let rules = [
        Rule::new("*", answer(401, &challenge, b"")).unless_header("Authorization", &basic),
        Rule::new("*", answer(307, &[("Location", &place)], b"")),
    ];
    let registry = FaultProxy::start("127.0.0.1:1", faults(rules)).unwrap();
    let login = Login::with_password(&registry.address(), "me", "hidden");
    let repository = login.repository(&registry.address());
    assert_eq!(
        read(&repository, &layer(b"elsewhere")).unwrap(),
        b"elsewhere"
    );
    assert_eq!(registry.requests().len(), 2);
    let requests = other.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("authorization"), None);

    // Nor where an upload is to go.
    let rules = [
        Rule::new("*", answer(401, &challenge, b"")).unless_header("Authorization", &basic),
        Rule::new("*", answer(404, &[], b"")).method("HEAD"),
        Rule::new("*", answer(202, &[("Location", &place)], b"")),
    ];
    registry.set(faults(rules));
    other.forget();
    other.set(faults([Rule::new("*", answer(201, &[], b""))]));
    put(&repository, b"new").unwrap();
    let requests = other.requests();
    assert_eq!((requests[0].method.as_str(), requests.len()), ("PUT", 1));
    assert_eq!(requests[0].header("authorization"), None);
}

#[test]
fn tokens_are_not_asked_for_without_encryption() {
    let challenge = [(
        "WWW-Authenticate",
        "Bearer realm=\"http://tokens.invalid/\",service=\"s\"",
    )];
    let registry = FaultProxy::start(
        "127.0.0.1:1",
        faults([Rule::new("*", answer(401, &challenge, b""))]),
    )
    .unwrap();
    let error = repository(&registry.address()).manifest("t").unwrap_err();
    assert!(error.to_string().contains("without encryption"), "{error}");
}
