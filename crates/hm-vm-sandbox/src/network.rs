//! What a VM reaches.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use hm_vm_core::NetworkPolicy;
use hm_vm_sys::pasta::{GuestResolver, Pasta, PastaGuard};

use crate::exec::Hold;

/// The network of one command. Dropping it ends what carries the traffic.
#[derive(Debug)]
pub(crate) struct Network {
    policy: NetworkPolicy,
    /// Carries `outbound` while the command runs.
    pasta: Option<PastaGuard>,
}

impl Network {
    pub(crate) fn new(policy: NetworkPolicy) -> Self {
        Self {
            policy,
            pasta: None,
        }
    }

    /// Content of the VM's `/etc/resolv.conf`.
    pub(crate) fn resolv_conf(&self) -> String {
        match self.policy {
            NetworkPolicy::None => String::new(),
            NetworkPolicy::Outbound => GuestResolver::of_this_host().resolv_conf(),
            // Without the file there are no name servers, as on the host.
            NetworkPolicy::Host => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        }
    }

    /// Whether the command must wait for [`attach`](Self::attach).
    pub(crate) fn needs_attachment(&self) -> bool {
        self.policy == NetworkPolicy::Outbound
    }

    /// Connects the network namespace of this process. `scratch` is a directory of the VM's own,
    /// which `hold` keeps.
    pub(crate) async fn attach(
        &mut self,
        pid: u32,
        scratch: PathBuf,
        hold: Arc<Hold>,
    ) -> Result<()> {
        if self.policy != NetworkPolicy::Outbound {
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
