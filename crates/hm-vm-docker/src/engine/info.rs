//! What is known of a daemon.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use bollard::{API_DEFAULT_VERSION, Docker};
use hm_vm_core::Error;

use crate::endpoint::Endpoint;
use crate::error::Doing as _;

/// Seconds that one request may take until its answer begins. Answers that come late by their nature (`wait`, `commit`, `load`) are
/// asked for with a client of their own.
const TIME_LIMIT: u64 = 120;

/// Whose daemon it is. They differ where the Engine API leaves room, and where Podman's form of it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Docker, or what behaves like it.
    Docker,
    /// Podman's service.
    Podman,
}

impl EngineKind {
    /// For people, options and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// What is known of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineInfo {
    /// Whose it is.
    pub kind: EngineKind,
    /// Its version, as it writes it.
    pub version: String,
    /// The version of the API that is spoken.
    pub api: (usize, usize),
    /// Its machine's processor, as images name it: `amd64`, `arm64`.
    pub processor: String,
    /// How it stores layers: `overlay2`, `overlayfs`, `btrfs`…
    pub driver: String,
    /// What that says of itself, by name: `Backing Filesystem`, …
    pub driver_status: Vec<(String, String)>,
    /// Version of its control groups: 1 or 2.
    pub cgroup_version: u8,
    /// Limits that it can set on containers.
    pub can_limit: CanLimit,
    /// Whether it runs without root.
    pub rootless: bool,
    /// Name of its machine.
    pub host: String,
}

/// Limits that a daemon can set on containers, as far as it tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CanLimit {
    /// Processor time.
    pub cpus: bool,
    /// Memory.
    pub memory: bool,
    /// Number of processes.
    pub pids: bool,
}

impl fmt::Display for EngineInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rootless = if self.rootless { ", rootless" } else { "" };
        write!(
            f,
            "{} {} ({}{rootless})",
            self.kind.name(),
            self.version,
            self.driver
        )
    }
}

fn unavailable(endpoint: &Endpoint, reason: impl fmt::Display) -> Error {
    Error::BackendUnavailable {
        backend: "docker".into(),
        reason: format!("{endpoint}: {reason}"),
    }
}

/// Connects without asking anything.
pub(crate) fn client(endpoint: &Endpoint) -> Result<Docker> {
    let path = |path: &Path| path.to_str().map(str::to_owned);
    let made = match endpoint {
        Endpoint::Unix(socket) => {
            let Some(socket) = path(socket) else {
                return Err(unavailable(endpoint, "its path must be UTF-8").into());
            };
            Docker::connect_with_unix(&socket, TIME_LIMIT, API_DEFAULT_VERSION)
        }
        Endpoint::Tcp { address, tls: None } => {
            Docker::connect_with_http(&format!("tcp://{address}"), TIME_LIMIT, API_DEFAULT_VERSION)
        }
        Endpoint::Tcp {
            address,
            tls: Some(files),
        } => Docker::connect_with_ssl(
            &format!("tcp://{address}"),
            &files.key,
            &files.certificate,
            &files.ca,
            TIME_LIMIT,
            API_DEFAULT_VERSION,
        ),
    };
    made.map_err(|error| unavailable(endpoint, error).into())
}

/// Connects, and asks who it is.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<(Docker, EngineInfo)> {
    let docker = client(endpoint)?
        .negotiate_version()
        .await
        .map_err(|error| unavailable(endpoint, error))?;
    let version = docker
        .version()
        .await
        .doing("asking the daemon's version")?;
    let info = docker.info().await.doing("asking what the daemon is")?;
    let components = version.components.unwrap_or_default();
    let is_podman = components
        .iter()
        .any(|component| component.name.contains("Podman"));
    let client = docker.client_version();
    let status = info.driver_status.unwrap_or_default();
    let security = info.security_options.unwrap_or_default();
    let info = EngineInfo {
        kind: if is_podman {
            EngineKind::Podman
        } else {
            EngineKind::Docker
        },
        version: version.version.unwrap_or_default(),
        api: (client.major_version, client.minor_version),
        processor: version.arch.unwrap_or_default(),
        driver: info.driver.unwrap_or_default(),
        driver_status: status
            .into_iter()
            .filter_map(|mut pair| {
                let value = pair.pop()?;
                Some((pair.pop()?, value))
            })
            .collect(),
        cgroup_version: match info.cgroup_version {
            Some(bollard::models::SystemInfoCgroupVersionEnum::_2) => 2,
            _ => 1,
        },
        can_limit: CanLimit {
            cpus: info.cpu_cfs_quota.unwrap_or(false),
            memory: info.memory_limit.unwrap_or(false),
            pids: info.pids_limit.unwrap_or(false),
        },
        rootless: security.iter().any(|option| option.contains("rootless")),
        host: info.name.unwrap_or_default(),
    };
    Ok((docker, info))
}
