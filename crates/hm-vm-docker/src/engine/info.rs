//! What is known of a daemon.

use std::fmt;

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum, SystemVersion};

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

    /// At the beginning of sentences, and where it is a name.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
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
    /// Whether it sees the files of this machine.
    pub is_here: bool,
    /// Protections of containers, in its own words: `name=seccomp,profile=default`, `name=userns`…
    pub security: Vec<String>,
    /// How containers reach the outside, and nobody them. `None` where that cannot be.
    pub(crate) outbound: Option<Outbound>,
}

/// How a daemon gives containers a way to the outside on which nobody reaches them. See `network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outbound {
    /// Docker: a bridge whose ports do not see each other.
    Bridge,
    /// Podman: translation in user mode by slirp4netns, one for each container.
    Slirp,
    /// Podman: the same by pasta.
    Pasta,
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

impl EngineInfo {
    /// What the daemon's own words say. `is_here`: it listens on a socket of this machine. That of Docker Desktop runs in a machine of its own nevertheless.
    pub(super) fn new(
        version: SystemVersion,
        info: SystemInfo,
        api: (usize, usize),
        is_here: bool,
    ) -> Self {
        let components = version.components.unwrap_or_default();
        let is_podman = components
            .iter()
            .any(|component| component.name.contains("Podman"));
        let status = info.driver_status.unwrap_or_default();
        let security = info.security_options.unwrap_or_default();
        Self {
            kind: if is_podman {
                EngineKind::Podman
            } else {
                EngineKind::Docker
            },
            version: version.version.unwrap_or_default(),
            api,
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
                Some(SystemInfoCgroupVersionEnum::_2) => 2,
                _ => 1,
            },
            can_limit: CanLimit {
                cpus: info.cpu_cfs_quota.unwrap_or(false),
                memory: info.memory_limit.unwrap_or(false),
                pids: info.pids_limit.unwrap_or(false),
            },
            rootless: security.iter().any(|option| option.contains("rootless")),
            host: info.name.unwrap_or_default(),
            is_here: is_here && info.operating_system.as_deref() != Some("Docker Desktop"),
            security,
            // Found with further questions.
            outbound: None,
        }
    }

    /// Takes into account whose socket it is. Podman does not say in this API that it runs without root; and on control groups of the
    /// first version it then says that it can set limits, and ignores them.
    pub(super) fn socket_of(&mut self, user: u32) {
        if self.kind != EngineKind::Podman || user == 0 {
            return;
        }
        self.rootless = true;
        if self.cgroup_version == 1 {
            self.can_limit = CanLimit::default();
        }
    }
}
