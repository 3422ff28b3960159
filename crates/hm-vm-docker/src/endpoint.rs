//! Where a daemon listens.

use std::fmt;
use std::path::PathBuf;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A port, of another machine mostly.
    Tcp {
        /// `HOST:PORT`.
        address: String,
        /// For TLS. Without, the connection is plain.
        tls: Option<TlsFiles>,
    },
}

/// The files for TLS with certificates of both sides, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// Who signed the daemon's certificate.
    pub ca: PathBuf,
    /// The client's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { address, tls: None } => write!(f, "tcp://{address}"),
            Self::Tcp { address, .. } => write!(f, "tcp://{address} with TLS"),
        }
    }
}

/// Looks for daemons as the command line programs of Docker and Podman do. PLACEHOLDER: fields and methods by part C.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EndpointSearch {}

impl EndpointSearch {
    /// As the environment of this process and its user's home say.
    pub fn from_environment() -> Self {
        Self::default()
    }

    /// The first one that answers.
    ///
    /// # Errors
    ///
    /// [`hm_vm_core::Error::BackendUnavailable`] with all places that were tried.
    pub fn find(&self) -> anyhow::Result<Endpoint> {
        Ok(Endpoint::Unix("/var/run/docker.sock".into()))
    }
}
