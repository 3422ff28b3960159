//! Limits, network policy and protections of a VM.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How much of the machine a VM may use, and what it may reach.
///
/// Every limit that is `Some` is enforced by the backend, or creation fails with
/// [`Error::LimitNotEnforceable`]. None is silently ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmConfig {
    /// Processor time per second of wall time, in whole processors.
    pub cpus: Option<u32>,
    /// Memory of all processes together, in MiB (2^20 bytes).
    pub memory_mib: Option<u64>,
    /// Size of what the VM may write to its disk beyond its image, in GB (2^30 bytes).
    pub disk_size_gb: Option<u64>,
    /// Number of processes and threads alive at once.
    pub pids: Option<u32>,
    /// What the VM may reach.
    pub network: NetworkPolicy,
    /// Protections to go without. What is not in this list is given, or nothing runs: where a
    /// protection cannot be had there is an error, never a silent downgrade.
    pub allow_weaker: Vec<Protection>,
}

/// What a VM may reach over the network. Part of the cache key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkPolicy {
    /// Loopback only.
    #[default]
    None,
    /// The outside through user-mode address translation; nobody reaches the VM.
    Outbound,
    /// The host's own network, without isolation.
    Host,
}

impl NetworkPolicy {
    /// All policies, in order of growing reach.
    pub const ALL: [Self; 3] = [Self::None, Self::Outbound, Self::Host];

    /// The name used in files, options and keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Outbound => "outbound",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for NetworkPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NetworkPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.name() == text)
            .ok_or_else(|| Error::InvalidInput {
                what: format!("network policy {text:?}"),
                reason: "expected none, outbound or host".into(),
            })
    }
}

/// A protection of the host against what runs in a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Protection {
    /// The system-call filter.
    Seccomp,
    /// Owners on disk are translated by the mount, so that the host's root owns nothing that the
    /// guest's root wrote.
    IdMap,
    /// The paths of `/proc` and `/sys` that tell about the host or change it are covered.
    MaskedPaths,
}

impl Protection {
    /// All protections.
    pub const ALL: [Self; 3] = [Self::Seccomp, Self::IdMap, Self::MaskedPaths];

    /// The name used in files and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seccomp => "seccomp",
            Self::IdMap => "id-map",
            Self::MaskedPaths => "masked-paths",
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protection {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|protection| protection.name() == text)
            .ok_or_else(|| Error::InvalidInput {
                what: format!("protection {text:?}"),
                reason: "expected seccomp, id-map or masked-paths".into(),
            })
    }
}
