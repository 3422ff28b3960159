//! The contexts of Docker's client.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::address::{self, Endpoint, TlsFiles, TlsNeed};

/// A larger file is nothing that Docker's client has written.
const MOST_BYTES: u64 = 4 << 20;
/// The context that stands for the usual socket.
pub(super) const DEFAULT: &str = "default";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    current_context: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Meta {
    endpoints: Endpoints,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Endpoints {
    docker: Option<Docker>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Docker {
    #[serde(rename = "Host")]
    host: String,
    #[serde(rename = "SkipTLSVerify")]
    skip_verify: bool,
}

/// The context that a user has chosen for all commands, if any.
///
/// # Errors
///
/// The configuration is there, but cannot be read.
pub(super) fn current(config: &Path) -> Result<Option<String>, String> {
    let config: Option<Config> = read(&config.join("config.json"))?;
    Ok(config
        .and_then(|config| config.current_context)
        .filter(|name| !name.is_empty() && name != DEFAULT))
}

/// Where the daemon of a context listens.
///
/// # Errors
///
/// There is no such context, or it cannot be used.
pub(super) fn endpoint(config: &Path, name: &str) -> Result<Endpoint, String> {
    let id = directory_name(name);
    let contexts = config.join("contexts");
    let file = contexts.join("meta").join(&id).join("meta.json");
    let meta: Meta = read(&file)?.ok_or_else(|| {
        format!(
            "there is no context {name:?}: {} does not exist; `docker context ls` lists those that there are",
            file.display()
        )
    })?;
    let docker = meta
        .endpoints
        .docker
        .ok_or_else(|| format!("the context {name:?} is not for Docker"))?;
    let tls = contexts.join("tls").join(&id).join("docker");
    address::parse(&docker.host, |need| {
        tls_files(tls, need, docker.skip_verify)
            .map_err(|error| format!("the context {name:?}: {error}"))
    })
}

fn tls_files(
    directory: PathBuf,
    need: TlsNeed,
    skip_verify: bool,
) -> Result<Option<TlsFiles>, String> {
    if need == TlsNeed::AsSet && !skip_verify && !directory.is_dir() {
        return Ok(None);
    }
    if skip_verify {
        return Err(
            "TLS without a check of the daemon's certificate is not supported: give the context its \
             CA (`docker context update`)"
                .to_owned(),
        );
    }
    TlsFiles::of_directory(&directory).map(Some)
}

/// Docker's client keeps each context in a directory named by the SHA-256 of its name.
fn directory_name(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    use std::io::Read as _;

    let failed = |why: &dyn std::fmt::Display| format!("reading {}: {why}", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(&error)),
    };
    let mut text = Vec::new();
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|error| failed(&error))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(failed(&"it is too large"));
    }
    // serde's own words may hold parts of the content, and there are passwords in it.
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let place = format_args!(
            "it is not valid at line {}, column {}",
            error.line(),
            error.column()
        );
        failed(&place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn directories_have_the_names_that_docker_gives_them() {
        // What `docker context create remote` makes.
        assert_eq!(
            directory_name("remote"),
            "b71199ebd070b36beab7317920c2c2f1d777df8d05e5527d8458fda57cb17a7a"
        );
    }

    #[test]
    fn a_context_names_its_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path();
        assert_eq!(current(config).unwrap(), None);
        write(
            config.join("config.json"),
            r#"{"auths": {}, "currentContext": "remote"}"#,
        );
        assert_eq!(current(config).unwrap().as_deref(), Some("remote"));
        let missing = endpoint(config, "remote").unwrap_err();
        assert!(missing.contains("no context \"remote\""), "{missing}");

        let id = directory_name("remote");
        let meta = config.join("contexts/meta").join(&id).join("meta.json");
        let host = |text: &str| {
            write(
                meta.clone(),
                &format!(r#"{{"Name":"remote","Metadata":{{}},"Endpoints":{{"docker":{text}}}}}"#),
            );
            endpoint(config, "remote")
        };
        let found = host(r#"{"Host":"unix:///run/x.sock","SkipTLSVerify":false}"#).unwrap();
        assert_eq!(found.to_string(), "unix:///run/x.sock");
        let found = host(r#"{"Host":"tcp://h:1"}"#).unwrap();
        assert_eq!(found.to_string(), "tcp://h:1");
        let unchecked = host(r#"{"Host":"tcp://h:1","SkipTLSVerify":true}"#).unwrap_err();
        assert!(unchecked.contains("not supported"), "{unchecked}");
        let ssh = host(r#"{"Host":"ssh://h"}"#).unwrap_err();
        assert!(ssh.contains("ssh -nNT"), "{ssh}");

        let tls = config.join("contexts/tls").join(&id).join("docker");
        write(tls.join("ca.pem"), "");
        let half = host(r#"{"Host":"tcp://h"}"#).unwrap_err();
        assert!(half.contains("cert.pem is no file"), "{half}");
        write(tls.join("cert.pem"), "");
        write(tls.join("key.pem"), "");
        let found = host(r#"{"Host":"tcp://h"}"#).unwrap();
        assert_eq!(found.to_string(), "tcp://h:2376 with TLS");

        write(meta, r#"{"Endpoints":{"kubernetes":{}}}"#);
        let other = endpoint(config, "remote").unwrap_err();
        assert!(other.contains("not for Docker"), "{other}");
    }

    #[test]
    fn a_broken_configuration_is_told_without_its_secrets() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path().join("config.json"),
            r#"{"auths": {"h": {"auth": "hidden"#,
        );
        let error = current(dir.path()).unwrap_err();
        assert!(error.contains("not valid at line 1"), "{error}");
        assert!(!error.contains("hidden"), "{error}");
        write(
            dir.path().join("config.json"),
            r#"{"currentContext": "default"}"#,
        );
        assert_eq!(current(dir.path()).unwrap(), None);
    }
}
