//! What containers are protected with, and what this backend does not give beside the sandbox.

use bollard::models::HostConfig;
use hm_vm_core::{Error, Protection, VmConfig};

use crate::engine::{EngineInfo, EngineKind};

/// Whether the daemon filters the system calls of containers.
fn filters_calls(info: &EngineInfo) -> bool {
    info.security
        .iter()
        .any(|option| option.contains("name=seccomp") && !option.contains("profile=unconfined"))
}

/// Whether the root of containers is another user on the daemon's machine.
pub(crate) fn maps_users(info: &EngineInfo) -> bool {
    info.rootless || info.security.iter().any(|option| option == "name=userns")
}

/// What the user should know of the daemon's protections: which of the sandbox's are not there.
pub(crate) fn notices(info: &EngineInfo) -> Vec<String> {
    if maps_users(info) {
        return Vec::new();
    }
    let fix = match info.kind {
        EngineKind::Docker => {
            "a rootless daemon, or one with `userns-remap`, has it, and so has the sandbox"
        }
        EngineKind::Podman => "a service without root has it, and so has the sandbox",
    };
    vec![format!(
        "root in a VM of {info} is root on its machine, kept in by capabilities and the filter of system calls alone: there \
         is no protection {:?}; {fix}",
        Protection::IdMap.name()
    )]
}

/// Writes the protections into a container's configuration.
///
/// # Errors
///
/// [`Error::ProtectionUnavailable`] when the daemon does not filter system calls, and that is not allowed by name.
pub(crate) fn apply(
    info: &EngineInfo,
    config: &VmConfig,
    host: &mut HostConfig,
) -> Result<(), Error> {
    let weaker = |protection| config.allow_weaker.contains(&protection);
    let mut options = vec!["no-new-privileges".to_owned()];
    if weaker(Protection::Seccomp) {
        options.push("seccomp=unconfined".into());
    } else if !filters_calls(info) {
        return Err(Error::ProtectionUnavailable {
            protection: Protection::Seccomp.name(),
            reason: format!(
                "{info} says that it does not filter the system calls of containers: its kernel cannot, or its default \
                 profile is `unconfined`"
            ),
        });
    }
    if weaker(Protection::MaskedPaths) {
        match info.kind {
            EngineKind::Docker => {
                host.masked_paths = Some(Vec::new());
                host.readonly_paths = Some(Vec::new());
            }
            // There an empty list is no list.
            EngineKind::Podman => options.push("unmask=ALL".into()),
        }
    }
    host.security_opt = Some(options);
    Ok(())
}
