//! Daemons with TLS are found, used, and refused with the reason.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests as well"
)]

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use hm_vm_core::Error;
use hm_vm_docker::{Endpoint, EndpointSearch};
use hm_vm_testkit::engines::DockerDaemon;
use hm_vm_testkit::privilege::need_program;
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;

fn openssl(dir: &Path, arguments: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    let command = command.args(arguments.split_whitespace()).current_dir(dir);
    let output = command.output().context("running openssl")?;
    if !output.status.success() {
        bail!(
            "openssl {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// A CA, and two certificates that it signed: `server.pem` for 127.0.0.1, and `cert.pem` for a client.
fn make_certificates(dir: &Path) -> Result<()> {
    std::fs::create_dir(dir)?;
    openssl(
        dir,
        &format!("req -x509 {KEY} -keyout ca.key -out ca.pem -days 9 -subj /CN=ca"),
    )?;
    for (name, key, extensions) in [
        (
            "server",
            "server.key",
            "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1\n",
        ),
        ("cert", "key.pem", "extendedKeyUsage=clientAuth\n"),
    ] {
        std::fs::write(dir.join("extensions"), extensions)?;
        openssl(
            dir,
            &format!("req {KEY} -keyout {key} -out {name}.csr -subj /CN={name}"),
        )?;
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile extensions \
                 -out {name}.pem"
            ),
        )?;
    }
    Ok(())
}

/// The daemon does not tell one that it chose itself soon enough.
fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

/// What a search with these variables finds, or the reason why it finds nobody.
fn find(variables: &[(&str, &str)]) -> Result<Endpoint, String> {
    let variable = |name: &str| -> Option<OsString> {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.into())
    };
    EndpointSearch::new(variable)
        .find()
        .map_err(|error| match error.downcast_ref::<Error>() {
            Some(Error::BackendUnavailable { reason, .. }) => reason.clone(),
            _ => panic!("{error:?}"),
        })
}

#[test]
fn certificates_of_both_sides_are_checked() {
    require!(DockerDaemon::need());
    require!(need_program("openssl"));
    let root = TestRoot::new().unwrap();
    let (ours, others) = (root.join("ours"), root.join("others"));
    make_certificates(&ours).unwrap();
    make_certificates(&others).unwrap();
    let file = |option: &str, name: &str| format!("--{option}={}", ours.join(name).display());
    let host = format!("tcp://127.0.0.1:{}", free_port());
    let _daemon = DockerDaemon::start_with(&[
        &format!("--host={host}"),
        "--tlsverify",
        &file("tlscacert", "ca.pem"),
        &file("tlscert", "server.pem"),
        &file("tlskey", "server.key"),
    ])
    .unwrap();
    let with = |directory: &Path, host: &str| {
        let directory = directory.to_str().unwrap();
        find(&[
            ("DOCKER_HOST", host),
            ("DOCKER_TLS_VERIFY", "1"),
            ("DOCKER_CERT_PATH", directory),
        ])
    };

    let found = with(&ours, &host).unwrap();
    assert!(
        matches!(found, Endpoint::Tcp { tls: Some(_), .. }),
        "{found:?}"
    );

    let mixed = |name: &str, ca: &Path, pair: &Path| {
        let dir = root.join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::copy(ca.join("ca.pem"), dir.join("ca.pem")).unwrap();
        for file in ["cert.pem", "key.pem"] {
            std::fs::copy(pair.join(file), dir.join(file)).unwrap();
        }
        dir
    };
    let refused = |directory: &Path, host: &str, part: &str| {
        let reason = with(directory, host).unwrap_err();
        assert!(reason.contains(part), "{part:?} is missing: {reason}");
    };
    refused(
        &mixed("wrong-ca", &others, &ours),
        &host,
        "not signed by the CA in ca.pem",
    );
    refused(
        &mixed("wrong-client", &ours, &others),
        &host,
        "refuses the client's certificate",
    );
    let other_name = host.replace("127.0.0.1", "localhost");
    refused(&ours, &other_name, "for another name");

    let broken = mixed("broken", &ours, &ours);
    std::fs::write(broken.join("key.pem"), "not a key").unwrap();
    refused(
        &broken,
        &host,
        "key.pem cannot be used: there is not a private key in it",
    );
    std::fs::copy(others.join("key.pem"), broken.join("key.pem")).unwrap();
    refused(&broken, &host, "cannot be used");
    std::fs::remove_file(broken.join("key.pem")).unwrap();
    refused(&broken, &host, "key.pem is no file");

    let plain = find(&[("DOCKER_HOST", &host)]).unwrap_err();
    assert!(
        plain.contains("it speaks TLS: set DOCKER_TLS_VERIFY=1"),
        "{plain}"
    );
}
