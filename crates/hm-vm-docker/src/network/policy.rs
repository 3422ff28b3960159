//! From policies to the daemon's modes.

use anyhow::Result;
use bollard::Docker;
use hm_vm_core::{Error, NetworkPolicy};

use super::{bridge, programs};
use crate::backend::Machine;
use crate::endpoint::Endpoint;
use crate::engine::{EngineInfo, EngineKind, Outbound};

/// Every container is an island: no way to the machine's loopback either.
const SLIRP: &str = "slirp4netns:allow_host_loopback=false,enable_ipv6=false";

/// The policies that this daemon can give.
pub(crate) fn offered(info: &EngineInfo) -> Vec<NetworkPolicy> {
    let is_offered = |policy: &NetworkPolicy| match policy {
        NetworkPolicy::None => true,
        NetworkPolicy::Outbound => info.outbound.is_some(),
        NetworkPolicy::Host => info.kind == EngineKind::Podman || has_the_machines_network(info),
    };
    NetworkPolicy::ALL.into_iter().filter(is_offered).collect()
}

/// The network of a Docker daemon without root is one of its own, not the machine's; and one that maps users refuses to give it to
/// mapped ones.
fn has_the_machines_network(info: &EngineInfo) -> bool {
    !crate::protections::maps_users(info)
}

/// How the daemon can give [`NetworkPolicy::Outbound`], if it can.
pub(crate) async fn find_outbound(
    docker: &Docker,
    endpoint: &Endpoint,
    info: &EngineInfo,
) -> Option<Outbound> {
    match info.kind {
        EngineKind::Docker => bridge::is_usable(docker).await.then_some(Outbound::Bridge),
        EngineKind::Podman => programs::find(endpoint, info).await,
    }
}

/// A container's network mode for a policy. Makes the network of `outbound` where it is missing.
///
/// # Errors
///
/// [`Error::Unsupported`] for a policy that is not offered; otherwise a failure of the daemon.
pub(crate) async fn mode(machine: &Machine, policy: NetworkPolicy) -> Result<String> {
    let info = machine.engine.info();
    if !offered(info).contains(&policy) {
        return Err(Error::Unsupported {
            what: format!("network policy {:?}", policy.name()),
        }
        .into());
    }
    Ok(match (policy, info.outbound) {
        (NetworkPolicy::None, _) | (NetworkPolicy::Outbound, None) => "none".into(),
        (NetworkPolicy::Host, _) => "host".into(),
        (NetworkPolicy::Outbound, Some(Outbound::Slirp)) => SLIRP.into(),
        (NetworkPolicy::Outbound, Some(Outbound::Pasta)) => "pasta".into(),
        (NetworkPolicy::Outbound, Some(Outbound::Bridge)) => {
            let docker = machine.engine.docker().clone();
            machine
                .engine
                .run(async move { bridge::ensure(&docker).await })
                .await?
        }
    })
}
