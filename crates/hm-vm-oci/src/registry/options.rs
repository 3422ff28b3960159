//! What a client is told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hm_vm_core::Cancellation;

use crate::CredentialFiles;

/// How registries are spoken to.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// What is special of hosts, by name with port as references have it: `docker.io`, `localhost:5000`. Mirrors may
    /// have entries of their own.
    pub hosts: BTreeMap<String, HostOptions>,
    /// Where credentials are looked for when a registry asks for them.
    pub credentials: CredentialFiles,
    /// Proxies on the way. Loopback is reached without.
    pub proxies: Proxies,
    /// How long a connection may take: 10 s.
    pub connect_timeout: Duration,
    /// How long the other side may say nothing: 30 s.
    pub idle_timeout: Duration,
    /// How long a registry may take to store what it has got whole: 2 minutes, and a second more for each 20 MB of
    /// it, since some of them copy or check it then.
    pub storing_timeout: Duration,
    /// How often something is tried again without progress: 3 times.
    pub retries: u32,
    /// Ends everything.
    pub cancel: Cancellation,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            credentials: CredentialFiles::default(),
            proxies: Proxies::default(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            storing_timeout: Duration::from_secs(120),
            retries: 3,
            cancel: Cancellation::new(),
        }
    }
}

/// What is special of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// Asked before it for what is read, in this order: `HOST`, `HOST:PORT` or `HOST/PREFIX`, also as an URL.
    pub mirrors: Vec<String>,
    /// It is spoken to without encryption.
    pub plain_http: bool,
    /// Files with certificates, in PEM form, that are trusted beside the system's.
    pub roots: Vec<PathBuf>,
}

/// Proxies, as URLs. May hold passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http:`.
    pub http: Option<String>,
    /// For `https:`.
    pub https: Option<String>,
    /// For both, where there is no other.
    pub all: Option<String>,
    /// Hosts that are reached without, separated by commas: names, domains, addresses, networks, `*`.
    pub no_proxy: Option<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |proxy: &Option<String>| proxy.as_ref().map(|_| "…");
        f.debug_struct("Proxies")
            .field("http", &hidden(&self.http))
            .field("https", &hidden(&self.https))
            .field("all", &hidden(&self.all))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}
