//! Limits of containers: which the daemon can enforce, and how it is told.

use std::collections::HashMap;

use bollard::models::HostConfig;
use hm_vm_core::{Capabilities, Error, Limit, VmConfig};

use crate::engine::{EngineInfo, EngineKind};
use crate::error::DockerError;
use crate::image::BaseImage;

/// Microseconds over which processor time is given out.
const PERIOD: i64 = 100_000;

/// More processors than any machine has; the kernel refuses quotas that are much larger.
const MOST_CPUS: u32 = 1 << 16;

/// What this backend can do with this daemon.
pub(crate) fn capabilities(info: &EngineInfo) -> Capabilities {
    Capabilities {
        limits: Limit::ALL
            .into_iter()
            .filter(|limit| refusal(info, *limit).is_none())
            .collect(),
        networks: crate::network::offered(info),
        many_user_ids: true,
        live_snapshots: false,
        terminal: true,
        remove_parent: true,
        // Docker's archives of layers leave `user.*` out.
        xattrs: false,
        faithful_files: true,
        usage: true,
        deep_chains: true,
        users: true,
        cache_mounts: true,
        secret_mounts: info.is_here,
        inject_patterns: true,
        outputs: true,
        private_networks: true,
        image_defaults: true,
    }
}

/// Why a limit cannot be enforced. `None` if it can, as far as the daemon tells beforehand.
pub(crate) fn refusal(info: &EngineInfo, limit: Limit) -> Option<String> {
    let can = match limit {
        Limit::Cpus => info.can_limit.cpus,
        Limit::Memory => info.can_limit.memory,
        Limit::Pids => info.can_limit.pids,
        Limit::Disk => return disk_refusal(info),
        _ => return Some("this backend does not know this limit".into()),
    };
    if can {
        return None;
    }
    let what = if info.rootless {
        "it runs without root, and nobody has delegated the control group to its user (with systemd: `Delegate=yes`)"
    } else {
        "its kernel, or its control group driver, cannot"
    };
    Some(format!("{info} cannot set it: {what}"))
}

fn disk_refusal(info: &EngineInfo) -> Option<String> {
    let backing = info
        .driver_status
        .iter()
        .find(|(name, _)| name == "Backing Filesystem")
        .map_or("", |(_, value)| value.as_str());
    let fits = match info.driver.as_str() {
        "overlay2" | "overlay" => backing == "xfs" && !info.rootless,
        "btrfs" | "zfs" | "devicemapper" => info.kind == EngineKind::Docker && !info.rootless,
        _ => false,
    };
    if fits {
        return None;
    }
    let on = if backing.is_empty() {
        String::new()
    } else {
        format!(" on {backing}")
    };
    Some(format!(
        "{info} stores files with {}{on}, which has no quotas; overlay2 on xfs that is mounted with pquota, btrfs and zfs have",
        info.driver
    ))
}

/// Writes the limits into a container's configuration.
///
/// # Errors
///
/// [`Error::InvalidInput`] for a limit of nothing: that is none to the daemon.
pub(crate) fn apply(
    info: &EngineInfo,
    base: &BaseImage,
    config: &VmConfig,
    host: &mut HostConfig,
) -> Result<(), Error> {
    let zero = |limit: Limit| Error::InvalidInput {
        what: format!("the {} limit", limit.name()),
        reason: "must not be 0".into(),
    };
    match config.cpus {
        Some(0) => return Err(zero(Limit::Cpus)),
        // Not `NanoCpus`: there the daemon refuses more than its machine has.
        Some(cpus) => {
            host.cpu_period = Some(PERIOD);
            host.cpu_quota = Some(i64::from(cpus.min(MOST_CPUS)) * PERIOD);
        }
        None => {}
    }
    match config.memory_mib {
        Some(0) => return Err(zero(Limit::Memory)),
        Some(mib) => {
            let bytes = i64::try_from(mib.saturating_mul(1 << 20)).unwrap_or(i64::MAX);
            host.memory = Some(bytes);
            // Memory and swap together: none of it is swap.
            host.memory_swap = Some(bytes);
        }
        None => {}
    }
    match config.pids {
        Some(0) => return Err(zero(Limit::Pids)),
        // The helper counts as well: the user's number is about the command.
        Some(pids) => host.pids_limit = Some(i64::from(pids) + 1),
        None => {}
    }
    match config.disk_size_gb {
        Some(0) => return Err(zero(Limit::Disk)),
        Some(gb) => {
            let mut bytes = gb.saturating_mul(1 << 30);
            // There the size is that of the whole tree, and the user's number is about what is beyond the image.
            if matches!(info.driver.as_str(), "btrfs" | "devicemapper") {
                bytes = bytes.saturating_add(base.size);
            }
            host.storage_opt = Some(HashMap::from([("size".into(), bytes.to_string())]));
        }
        None => {}
    }
    Ok(())
}

/// The contract's error where the daemon refuses a container for its limits, itself otherwise.
pub(crate) fn refused(error: DockerError, config: &VmConfig) -> anyhow::Error {
    let DockerError::Refused { message, .. } = &error else {
        return error.contract();
    };
    let words = message.to_ascii_lowercase();
    let says = |limit: Limit, signs: &[&str]| {
        limit.is_set(config) && signs.iter().any(|sign| words.contains(sign))
    };
    let limit = if says(
        Limit::Disk,
        &[
            "storage-opt",
            "storage option",
            "storage opt",
            "pquota",
            "quota",
        ],
    ) {
        Limit::Disk
    } else if says(Limit::Memory, &["memory"]) {
        Limit::Memory
    } else if says(Limit::Cpus, &["cpu", "cfs"]) {
        Limit::Cpus
    } else if says(Limit::Pids, &["pids"]) {
        Limit::Pids
    } else {
        return error.contract();
    };
    Error::LimitNotEnforceable {
        limit,
        reason: format!("the daemon says: {message}"),
    }
    .into()
}
