//! A network that several containers share.
//!
//! It is the network of a *holder*: a container of ours in which only the helper runs. Members join it by
//! their own network mode. All are on one loopback interface, to which the names lead.
//!
//! On Docker a member has its holder's `/etc/hosts`. On Podman it has one of its own, and could not get names in the mode
//! `container:`; there it joins by the path of the network of the holder's process, and gets the names itself.

use std::any::Any;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use hm_vm_core::{Error, NetworkPolicy, PrivateNetwork, PrivateNetworkRequest, VmConfig};

use crate::backend::Machine;
use crate::container::{self, Container, Shape};
use crate::engine::EngineKind;
use crate::error::{DockerError, Doing as _};
use crate::exec::Attached;
use crate::{empty_image, network};

/// The network, as its user has it.
#[derive(Debug)]
struct HeldNetwork {
    holder: Arc<Holder>,
}

/// The container whose network it is. Removed when the last one that has this drops it.
#[derive(Debug)]
pub(crate) struct Holder {
    // Dropped before the container, whose helper it is.
    attached: Attached,
    _container: Container,
    /// The network mode of members.
    network: String,
    /// What members are told of names: `NAME:ADDRESS` each.
    extra_hosts: Vec<String>,
    machine: Arc<Machine>,
}

/// A holder is itself.
impl PartialEq for Holder {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Holder {}

/// Makes a network.
///
/// # Errors
///
/// [`Error::Unsupported`] for a policy that cannot be shared, [`Error::InvalidInput`] for a name that is none; otherwise a
/// failure of the daemon.
pub(crate) async fn make(
    machine: &Arc<Machine>,
    request: &PrivateNetworkRequest,
) -> Result<Arc<dyn PrivateNetwork>> {
    check(machine, request)?;
    let (owner, request) = (Arc::clone(machine), request.clone());
    // When nobody waits any more, what is made is dropped there, which removes it.
    let holder = machine
        .engine
        .run(async move { hold(&owner, &request).await });
    Ok(Arc::new(HeldNetwork {
        holder: Arc::new(holder.await?),
    }))
}

/// The shape of containers on this network. It keeps the network.
///
/// # Errors
///
/// [`Error::InvalidInput`] when another backend made it.
pub(crate) fn shape(
    network: &Arc<dyn PrivateNetwork>,
    machine: &Arc<Machine>,
) -> Result<Shape, Error> {
    let refuse = |reason: &str| Error::InvalidInput {
        what: "the private network".into(),
        reason: reason.into(),
    };
    let network = network
        .as_any()
        .downcast_ref::<HeldNetwork>()
        .ok_or_else(|| refuse("it was made by another backend"))?;
    let holder = &network.holder;
    if !Arc::ptr_eq(&holder.machine, machine) {
        return Err(refuse("it was made by another backend of this kind"));
    }
    Ok(Shape {
        network: holder.network.clone(),
        extra_hosts: holder.extra_hosts.clone(),
        holder: Some(Arc::clone(holder)),
        ..Shape::default()
    })
}

fn check(machine: &Machine, request: &PrivateNetworkRequest) -> Result<(), Error> {
    let is_offered = network::offered(machine.engine.info()).contains(&request.policy);
    if request.policy == NetworkPolicy::Host || !is_offered {
        return Err(Error::Unsupported {
            what: format!(
                "a private network with network policy {:?}",
                request.policy.name()
            ),
        });
    }
    match request.names.iter().find(|name| !is_host_name(name)) {
        None => Ok(()),
        Some(name) => Err(Error::InvalidInput {
            what: format!("host name {name:?}"),
            reason: "must consist of letters, digits, \"-\", \"_\" and \".\"".into(),
        }),
    }
}

fn is_host_name(name: &str) -> bool {
    /// Of a name in the DNS.
    const LONGEST: usize = 253;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=LONGEST).contains(&name.len()) && name.bytes().all(allowed)
}

/// Makes and starts a holder.
async fn hold(machine: &Arc<Machine>, request: &PrivateNetworkRequest) -> Result<Holder> {
    let image = empty_image::ensure(machine).await?;
    let shape = Shape {
        network: network::mode(machine, request.policy).await?,
        extra_hosts: request
            .names
            .iter()
            .map(|name| format!("{name}:127.0.0.1"))
            .collect(),
        ..Shape::default()
    };
    let config = VmConfig::default();
    let made = container::create(machine, &image, "holder", &shape, &config).await;
    let container = made.context("making a private network")?;
    let attached = Attached::start(machine, &container)
        .await
        .context("making a private network")?;
    let (network, extra_hosts) = match machine.engine.info().kind {
        EngineKind::Docker => (format!("container:{}", container.id()), Vec::new()),
        EngineKind::Podman => {
            let process = process(machine, &container).await?;
            (format!("ns:/proc/{process}/ns/net"), shape.extra_hosts)
        }
    };
    Ok(Holder {
        attached,
        _container: container,
        network,
        extra_hosts,
        machine: Arc::clone(machine),
    })
}

/// The first process of a container, as the daemon's machine counts.
async fn process(machine: &Machine, container: &Container) -> Result<i64> {
    let doing = format!("looking at container {}", container.name());
    let docker = machine.engine.docker();
    let found = docker.inspect_container(container.id(), None).await;
    let state = found.doing(&*doing)?.state.unwrap_or_default();
    match state.pid {
        Some(pid) if pid > 1 => Ok(pid),
        other => Err(DockerError::Nonsense {
            doing,
            detail: format!("it runs, and its process is {other:?}"),
        }
        .into()),
    }
}

#[async_trait]
impl PrivateNetwork for HeldNetwork {
    async fn accepts(&self, port: u16) -> Result<bool> {
        self.holder
            .attached
            .accepts(port)
            .await
            .context("looking for a server on a private network")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_be_other_addresses_or_lines() {
        for name in ["db", "my-db_1.test", "A"] {
            assert!(is_host_name(name), "{name:?}");
        }
        for name in ["", "a b", "a\nb", "a:10.0.0.1", "#", "ä", &"x".repeat(254)] {
            assert!(!is_host_name(name), "{name:?}");
        }
    }
}
