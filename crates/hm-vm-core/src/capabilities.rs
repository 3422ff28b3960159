//! What a backend can do beyond the minimum.

use crate::config::{NetworkPolicy, VmConfig};
use crate::error::Error;

/// A limit of [`VmConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// [`VmConfig::cpus`].
    Cpus,
    /// [`VmConfig::memory_mib`].
    Memory,
    /// [`VmConfig::disk_size_gb`].
    Disk,
    /// [`VmConfig::pids`].
    Pids,
}

impl Limit {
    /// All limits.
    pub const ALL: [Self; 4] = [Self::Cpus, Self::Memory, Self::Disk, Self::Pids];

    /// The name used in messages and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpus => "cpus",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Pids => "pids",
        }
    }

    /// Whether `config` asks for this limit.
    pub fn is_set(self, config: &VmConfig) -> bool {
        match self {
            Self::Cpus => config.cpus.is_some(),
            Self::Memory => config.memory_mib.is_some(),
            Self::Disk => config.disk_size_gb.is_some(),
            Self::Pids => config.pids.is_some(),
        }
    }
}

/// What a backend can do, on this machine and for this user.
///
/// What is not declared must be refused, not ignored: the conformance suite checks both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Limits that are enforced. Asking for another one fails with [`Error::LimitNotEnforceable`].
    pub limits: Vec<Limit>,
    /// Network policies that are offered. Another one fails with [`Error::Unsupported`].
    pub networks: Vec<NetworkPolicy>,
    /// Several user ids exist inside: `chown` to any of them works.
    pub many_user_ids: bool,
    /// Memory and processes can be part of a snapshot.
    pub live_snapshots: bool,
    /// [`Vm::terminal`](crate::Vm::terminal) works.
    pub terminal: bool,
    /// Removing a snapshot that other snapshots were forked from leaves those usable.
    pub remove_parent: bool,
    /// Extended attributes of the `user.` name space are kept by snapshots.
    pub xattrs: bool,
    /// File modes, hard links, fifos, sparse files and names that are not UTF-8 are kept.
    pub faithful_files: bool,
    /// [`Vm::exec_with`](crate::Vm::exec_with) fills in CPU time, memory and bytes written.
    pub usage: bool,
    /// Chains of a thousand snapshots work.
    pub deep_chains: bool,
    /// [`ExecRequest::user`](crate::ExecRequest::user) works.
    pub users: bool,
    /// [`Mount::Cache`](crate::Mount::Cache) works.
    pub cache_mounts: bool,
    /// [`Mount::Secret`](crate::Mount::Secret) works.
    pub secret_mounts: bool,
    /// [`InjectSource`](crate::InjectSource) may have patterns.
    pub inject_patterns: bool,
    /// [`VmBackend::copy_outputs`](crate::VmBackend::copy_outputs) works.
    pub outputs: bool,
    /// [`VmBackend::private_network`](crate::VmBackend::private_network) works.
    pub private_networks: bool,
    /// Environment, user and working directory that an image names hold for commands that name none.
    pub image_defaults: bool,
}

impl Capabilities {
    /// Fails when `config` asks for something that is not declared here. `reason` says why the
    /// backend cannot do it, and what the user can do about it.
    ///
    /// # Errors
    ///
    /// [`Error::LimitNotEnforceable`] for a limit, [`Error::Unsupported`] for a network policy.
    pub fn check(&self, config: &VmConfig, reason: impl Fn(Limit) -> String) -> Result<(), Error> {
        for limit in Limit::ALL {
            if limit.is_set(config) && !self.limits.contains(&limit) {
                return Err(Error::LimitNotEnforceable {
                    limit,
                    reason: reason(limit),
                });
            }
        }
        if !self.networks.contains(&config.network) {
            return Err(Error::Unsupported {
                what: format!("network policy {:?}", config.network.name()),
            });
        }
        Ok(())
    }
}
