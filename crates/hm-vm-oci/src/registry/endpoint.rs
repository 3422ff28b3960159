//! One server: where it is, how it is spoken to.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, Url};

use super::client::Inner;
use super::token::Authority;
use super::{HostOptions, RegistryOptions};
use crate::OciError;

/// Docker Hub's name in references, and that of the machine that answers.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");
/// How long a mirror that could not be reached is left alone.
const REST: Duration = Duration::from_secs(60);

/// Whether a server speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Encryption {
    /// It has to.
    Always,
    /// It does not.
    Never,
    /// On loopback: not known yet. It is tried without first.
    Unknown,
}

/// One server, and what is known of it.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// As references name it.
    pub(super) name: String,
    /// Where it is.
    host: String,
    /// Before the names of repositories: empty, or with `/` at its end.
    prefix: String,
    encryption: AtomicU8,
    roots: Vec<PathBuf>,
    /// Who we are to it.
    pub(super) authority: Authority,
    /// Not asked before.
    rests_until: Mutex<Option<Instant>>,
}

impl Endpoint {
    /// A registry, by its name in references.
    pub(super) fn registry(name: &str, options: &RegistryOptions) -> Result<Self, OciError> {
        let host = if name == HUB.0 { HUB.1 } else { name };
        Self::new(name, host, "", None, options)
    }

    /// A mirror, as options name it.
    pub(super) fn mirror(text: &str, options: &RegistryOptions) -> Result<Self, OciError> {
        let (encryption, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Some(Encryption::Always), rest),
            Some(("http", rest)) => (Some(Encryption::Never), rest),
            Some(_) => {
                let reason = "only http and https are spoken";
                return Err(OciError::invalid(format!("mirror {text:?}"), reason));
            }
            None => (None, text),
        };
        let rest = rest.trim_end_matches('/');
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let host = if name == HUB.0 { HUB.1 } else { name };
        Self::new(name, host, prefix, encryption, options)
    }

    fn new(
        name: &str,
        host: &str,
        prefix: &str,
        wanted: Option<Encryption>,
        options: &RegistryOptions,
    ) -> Result<Self, OciError> {
        let invalid = |reason: &str| OciError::invalid(format!("registry {name:?}"), reason);
        let url = Url::parse(&format!("https://{host}/")).map_err(|_| invalid("it is no host"))?;
        if !url.username().is_empty() || url.password().is_some() || url.path() != "/" {
            return Err(invalid("it is no host"));
        }
        let own = HostOptions::default();
        let own = options.hosts.get(name).unwrap_or(&own);
        let encryption = match wanted {
            Some(Encryption::Never) if !own.plain_http && !is_loopback(&url) => {
                return Err(invalid(
                    "it is not allowed to be spoken to without encryption",
                ));
            }
            Some(wanted) => wanted,
            None if own.plain_http => Encryption::Never,
            // Certificates are there for a purpose.
            None if is_loopback(&url) && own.roots.is_empty() => Encryption::Unknown,
            None => Encryption::Always,
        };
        Ok(Self {
            name: name.to_owned(),
            host: host.to_owned(),
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            },
            encryption: AtomicU8::new(encryption as u8),
            roots: own.roots.clone(),
            authority: Authority::default(),
            rests_until: Mutex::default(),
        })
    }

    /// What a repository is called here.
    pub(super) fn repository(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The address of a part of a repository: `manifests/latest`.
    pub(super) fn url(&self, repository: &str, part: &str) -> Result<Url, OciError> {
        let scheme = match self.encryption() {
            Encryption::Always => "https",
            Encryption::Never | Encryption::Unknown => "http",
        };
        let (host, prefix) = (&self.host, &self.prefix);
        Url::parse(&format!("{scheme}://{host}/v2/{prefix}{repository}/{part}")).map_err(|error| {
            OciError::invalid(format!("registry {:?}", self.name), error.to_string())
        })
    }

    pub(super) fn encryption(&self) -> Encryption {
        match self.encryption.load(Ordering::Relaxed) {
            0 => Encryption::Always,
            1 => Encryption::Never,
            _ => Encryption::Unknown,
        }
    }

    /// It is known now.
    pub(super) fn learn(&self, encryption: Encryption) {
        self.encryption.store(encryption as u8, Ordering::Relaxed);
    }

    /// Connections for this address, which this server has named or is. Certificates that are trusted for this server
    /// are trusted there as well: its storage and its tokens are often of the same house.
    pub(super) fn client(&self, url: &Url, client: &Inner) -> Result<Client, OciError> {
        if url.scheme() != "https" {
            return Ok(client.transport.plain());
        }
        let mut roots = self.roots.clone();
        if let Some(host) = client.options.hosts.get(&name_of(url)) {
            roots.extend(host.roots.iter().cloned());
            roots.sort();
            roots.dedup();
        }
        client.transport.secure(&roots)
    }

    /// Whether this address is the server's own, so that it may know who we are.
    pub(super) fn owns(&self, url: &Url) -> bool {
        let own = self.url("x", "y");
        own.is_ok_and(|own| own.origin() == url.origin())
    }

    /// It could not be reached: it is left alone for a while.
    pub(super) fn rest(&self) {
        *self.resting() = Some(Instant::now() + REST);
    }

    pub(super) fn rests(&self) -> bool {
        self.resting().is_some_and(|until| Instant::now() < until)
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.rests_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an address may be used where a server at `from` points to it.
pub(super) fn may_follow(from: &Url, to: &Url, options: &RegistryOptions) -> Result<(), String> {
    let host = to.host_str().unwrap_or_default();
    match to.scheme() {
        "https" => Ok(()),
        "http" if from.scheme() == "https" => {
            Err(format!("that we go on at {host} without encryption"))
        }
        "http" if is_plain_allowed(to, options) => Ok(()),
        "http" => Err(format!(
            "that we go on at {host} without encryption, which is not allowed"
        )),
        scheme => Err(format!("that we go on by {scheme}")),
    }
}

/// A host as options have it.
fn name_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn is_plain_allowed(url: &Url, options: &RegistryOptions) -> bool {
    let allowed = options.hosts.get(&name_of(url));
    is_loopback(url) || allowed.is_some_and(|host| host.plain_http)
}

fn is_loopback(url: &Url) -> bool {
    // Not `Url::host`, whose type has no name here.
    let host = url.host_str().unwrap_or_default();
    host == "localhost"
        || host == "[::1]"
        || host
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_may_be_plain_unless_it_is_allowed_by_name() {
        let mut options = RegistryOptions::default();
        let plain = HostOptions {
            plain_http: true,
            ..HostOptions::default()
        };
        options.hosts.insert("plain.example:80".to_owned(), plain);
        let encryption = |name: &str| Endpoint::registry(name, &options).unwrap().encryption();
        for name in ["localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000"] {
            assert_eq!(encryption(name), Encryption::Unknown, "{name}");
        }
        assert_eq!(encryption("plain.example:80"), Encryption::Never);
        for name in [
            "docker.io",
            "plain.example",
            "localhost.example",
            "128.0.0.1",
            "[::2]",
        ] {
            assert_eq!(encryption(name), Encryption::Always, "{name}");
        }
        let mirror = |text: &str| Endpoint::mirror(text, &options);
        assert!(mirror("http://other.example").is_err());
        assert!(mirror("ftp://localhost").is_err());
        assert!(mirror("user:pass@host").is_err());
        let mirror = mirror("http://localhost:1/hub/").unwrap();
        assert_eq!(mirror.encryption(), Encryption::Never);
        let url = mirror.url("library/alpine", "manifests/3").unwrap();
        let expected = "http://localhost:1/v2/hub/library/alpine/manifests/3";
        assert_eq!(url.as_str(), expected);
        let hub = Endpoint::registry("docker.io", &options).unwrap();
        let url = hub.url("a/b", "blobs/x").unwrap();
        assert_eq!(url.as_str(), "https://registry-1.docker.io/v2/a/b/blobs/x");
    }

    #[test]
    fn redirects_do_not_lose_encryption() {
        let options = RegistryOptions::default();
        let may = |from: &str, to: &str| {
            let (from, to) = (Url::parse(from).unwrap(), Url::parse(to).unwrap());
            may_follow(&from, &to, &options).is_ok()
        };
        assert!(may("https://a/", "https://b/"));
        assert!(may("http://localhost/", "http://127.0.0.1:3/"));
        assert!(may("http://localhost/", "https://b/"));
        assert!(!may("https://a/", "http://a/"));
        assert!(!may("https://a/", "http://localhost/"));
        assert!(!may("http://localhost/", "http://b/"));
        assert!(!may("https://a/", "file:///etc/passwd"));
    }
}
