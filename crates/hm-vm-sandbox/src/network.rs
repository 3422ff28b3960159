//! What a VM reaches.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use hm_vm_core::NetworkPolicy;
use hm_vm_sys::launch::NetworkOf;
use hm_vm_sys::pasta::{GuestResolver, Pasta, PastaGuard};

use crate::exec::Hold;
use crate::private_network::Shared;

/// The network of one command. Dropping it ends what carries the traffic.
#[derive(Debug)]
pub(crate) struct Network {
    of: Of,
    /// Carries `outbound` while the command runs.
    pasta: Option<PastaGuard>,
}

#[derive(Debug)]
enum Of {
    /// The command's own, or the host's.
    Policy(NetworkPolicy),
    Shared(Arc<Shared>),
}

impl Network {
    /// The network of a policy, or the shared one in its place.
    pub(crate) fn new(policy: NetworkPolicy, shared: Option<Arc<Shared>>) -> Self {
        Self {
            of: shared.map_or(Of::Policy(policy), Of::Shared),
            pasta: None,
        }
    }

    /// Content of the VM's `/etc/resolv.conf`.
    pub(crate) fn resolv_conf(&self) -> String {
        match &self.of {
            Of::Policy(NetworkPolicy::None) => String::new(),
            Of::Policy(NetworkPolicy::Outbound) => GuestResolver::of_this_host().resolv_conf(),
            // Without the file there are no name servers, as on the host.
            Of::Policy(NetworkPolicy::Host) => {
                std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
            }
            Of::Shared(shared) => shared.resolv_conf(),
        }
    }

    /// Names that lead to the loopback interface.
    pub(crate) fn names(&self) -> &[String] {
        match &self.of {
            Of::Policy(_) => &[],
            Of::Shared(shared) => shared.names(),
        }
    }

    /// The namespace for a launch.
    pub(crate) fn namespace(&self) -> NetworkOf {
        match &self.of {
            Of::Policy(NetworkPolicy::Host) => NetworkOf::Caller,
            Of::Policy(_) => NetworkOf::New,
            Of::Shared(shared) => NetworkOf::Shared(Arc::clone(shared.namespace())),
        }
    }

    /// Whether it is one that the launch makes, with its loopback interface down.
    pub(crate) fn is_new(&self) -> bool {
        matches!(self.namespace(), NetworkOf::New)
    }

    /// Whether it is the host's.
    pub(crate) fn is_hosts(&self) -> bool {
        matches!(self.namespace(), NetworkOf::Caller)
    }

    /// Whether the command must wait for [`attach`](Self::attach).
    pub(crate) fn needs_attachment(&self) -> bool {
        matches!(self.of, Of::Policy(NetworkPolicy::Outbound))
    }

    /// Connects the network namespace of this process. `scratch` is a directory of the VM's own,
    /// which `hold` keeps.
    pub(crate) async fn attach(
        &mut self,
        pid: u32,
        scratch: PathBuf,
        hold: Arc<Hold>,
    ) -> Result<()> {
        if !self.needs_attachment() {
            return Ok(());
        }
        let pasta = Pasta::find().context("pasta is not installed any more")?;
        // If nobody waits any more, the guard is dropped on that thread, which ends pasta.
        let attached = tokio::task::spawn_blocking(move || {
            let guard = pasta.attach(pid, &scratch);
            drop(hold);
            guard
        });
        let guard = attached.await.context("connecting the VM's network")?;
        self.pasta = Some(guard?);
        Ok(())
    }
}

/// Whether `outbound` can be had by this user.
pub(crate) fn outbound_available() -> bool {
    Pasta::find().is_some() && Pasta::device_is_usable()
}
