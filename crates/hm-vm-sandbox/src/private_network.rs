//! A network namespace that several VMs join.

use std::any::Any;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, mpsc};

use anyhow::{Context, Result};
use async_trait::async_trait;
use hm_vm_core::{Error, NetworkPolicy, PrivateNetwork, PrivateNetworkRequest};
use hm_vm_sys::UserNamespace;
use hm_vm_sys::launch::{Launch, Namespaces, NetworkOf, Process, launch};
use hm_vm_sys::netns::NetworkNamespace;
use hm_vm_sys::pasta::{Pasta, PastaGuard};

use crate::backend::Machine;
use crate::files;

/// The network, as its user has it.
#[derive(Debug)]
pub(crate) struct SandboxNetwork {
    shared: Arc<Shared>,
}

/// The network, as every command on it has it: the last of them ends it.
#[derive(Debug)]
pub(crate) struct Shared {
    namespace: NetworkNamespace,
    names: Vec<String>,
    /// Carries `outbound` traffic. Ended before the namespace goes.
    pasta: Option<PastaGuard>,
}

impl Shared {
    /// The network behind a request, for a VM in this user namespace.
    pub(crate) fn of(
        network: &Arc<dyn PrivateNetwork>,
        namespace: &Arc<UserNamespace>,
    ) -> Result<Arc<Self>, Error> {
        let refuse = |reason: &str| Error::InvalidInput {
            what: "the private network".into(),
            reason: reason.into(),
        };
        let network = network
            .as_any()
            .downcast_ref::<SandboxNetwork>()
            .ok_or_else(|| refuse("it was made by another backend"))?;
        if !Arc::ptr_eq(network.shared.namespace.owner(), namespace) {
            return Err(refuse(
                "it belongs to other users than the VM: the VM goes without the protection \"id-map\", or uses \
                 another store",
            ));
        }
        Ok(Arc::clone(&network.shared))
    }

    /// The namespace to join.
    pub(crate) fn namespace(&self) -> &Arc<OwnedFd> {
        self.namespace.fd()
    }

    /// Names of its members.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Content of `/etc/resolv.conf`.
    pub(crate) fn resolv_conf(&self) -> String {
        let pasta = self.pasta.as_ref();
        pasta.map_or_else(String::new, |pasta| pasta.resolver().resolv_conf())
    }
}

impl SandboxNetwork {
    /// Makes the network. If the future is dropped, it is gone a moment later.
    pub(crate) async fn new(machine: &Machine, request: &PrivateNetworkRequest) -> Result<Self> {
        check(request)?;
        machine.prepare()?;
        let owner = machine.user_namespace()?;
        let scratch = machine.store.root().join(files::MOUNTS);
        let (policy, names) = (request.policy, request.names.clone());
        let made = tokio::task::spawn_blocking(move || -> Result<Self> {
            let namespace = NetworkNamespace::new(&owner)?;
            let pasta = match policy {
                NetworkPolicy::Outbound => Some(connect(&namespace, &scratch)?),
                _ => None,
            };
            Ok(Self {
                shared: Arc::new(Shared {
                    namespace,
                    names,
                    pasta,
                }),
            })
        });
        made.await.context("making a private network")?
    }
}

fn check(request: &PrivateNetworkRequest) -> Result<(), Error> {
    let available = match request.policy {
        NetworkPolicy::None => true,
        NetworkPolicy::Outbound => crate::network::outbound_available(),
        _ => false,
    };
    if !available {
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

/// Starts pasta. It finds the namespace by a process in it, which ends again: one that waits at the gate for
/// a command that never comes.
fn connect(namespace: &NetworkNamespace, scratch: &Path) -> Result<PastaGuard> {
    let pasta = Pasta::find().context("pasta is not installed any more")?;
    let stand_in = stand_in(namespace)?;
    Ok(pasta.attach(stand_in.pid(), scratch)?)
}

fn stand_in(namespace: &NetworkNamespace) -> Result<Process> {
    let null =
        || -> Result<OwnedFd> { Ok(File::open("/dev/null").context("opening /dev/null")?.into()) };
    let plan = Launch {
        user_namespace: Arc::clone(namespace.owner()),
        outer: Vec::new(),
        namespaces: Namespaces {
            network: NetworkOf::Shared(Arc::clone(namespace.fd())),
        },
        inner: Vec::new(),
        argv: vec![c"/nothing".into()],
        env: Vec::new(),
        stdio: [null()?, null()?, null()?],
        terminal: false,
        gated: true,
    };
    let (sender, receiver) = mpsc::channel();
    launch(plan, move |started| {
        // If nobody waits any more, the process is dropped here, which ends it.
        let _ = sender.send(started);
    })?;
    let started = receiver.recv().context("the spawner thread is gone")?;
    started.context("entering the private network")
}

#[async_trait]
impl PrivateNetwork for SandboxNetwork {
    async fn accepts(&self, port: u16) -> Result<bool> {
        let shared = Arc::clone(&self.shared);
        let looked = tokio::task::spawn_blocking(move || shared.namespace.listens(port));
        Ok(looked.await.context("looking for a server")??)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_write_other_lines_into_the_hosts_file() {
        for name in ["db", "my-db_1.test", "A"] {
            assert!(is_host_name(name), "{name:?}");
        }
        for name in ["", "a b", "a\nb", "a\t", "#", "ä"] {
            assert!(!is_host_name(name), "{name:?}");
        }
    }

    #[test]
    fn the_hosts_network_cannot_be_shared() {
        let request = PrivateNetworkRequest {
            policy: NetworkPolicy::Host,
            names: Vec::new(),
        };
        assert!(matches!(check(&request), Err(Error::Unsupported { .. })));
    }
}
