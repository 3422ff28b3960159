//! What a user has configured for all pipelines. Its reader is [`parse::read_configuration`].
//!
//! [`parse::read_configuration`]: crate::parse::read_configuration

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A user's configuration. What is absent is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Name of the backend, where neither the command line nor the pipeline has one.
    pub backend: Option<String>,
    /// Where results are shared with other machines.
    pub remote_cache: Option<RemoteCacheRule>,
    /// How old what is known of an image's tag may be before its registry is asked again; absent is for ever.
    pub image_max_age: Option<Duration>,
    /// Registries that are not as others, by host and port.
    pub registries: BTreeMap<String, RegistryRule>,
}

/// Where results are shared with other machines, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCacheRule {
    /// Repository of a registry, as `registry.example/team/cache`.
    pub repository: String,
    /// Whether results are given too. Absent is that nobody chose.
    pub mode: Option<RemoteCacheMode>,
}

/// Whether results are only taken from a shared cache, or given to it as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteCacheMode {
    /// Results are taken, and what runs here is given.
    #[default]
    ReadWrite,
    /// Results are taken, and none is given.
    ReadOnly,
}

impl RemoteCacheMode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ReadWrite, Self::ReadOnly];

    /// The name that users write.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
        }
    }
}

/// A registry that is not as others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryRule {
    /// Hosts that are asked first for what is read: with a port, and a path, if they have them.
    pub mirrors: Vec<String>,
    /// Whether it is talked to without TLS.
    pub plain_http: bool,
    /// Files with certificates that are trusted for it beside those of the system; absolute.
    pub roots: Vec<PathBuf>,
}
