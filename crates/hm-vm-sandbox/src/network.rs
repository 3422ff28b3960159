//! What a VM reaches.

use anyhow::Result;
use hm_vm_core::{Error, NetworkPolicy};

/// The network of one command.
#[derive(Debug)]
pub(crate) struct Network {
    policy: NetworkPolicy,
}

impl Network {
    pub(crate) fn new(policy: NetworkPolicy) -> Result<Self, Error> {
        Ok(Self { policy })
    }

    /// Name servers for the VM.
    pub(crate) fn resolv_conf(&self) -> String {
        match self.policy {
            NetworkPolicy::None => String::new(),
            NetworkPolicy::Outbound | NetworkPolicy::Host => {
                std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
            }
        }
    }

    /// Whether the command must wait for [`attach`](Self::attach).
    pub(crate) fn needs_attachment(&self) -> bool {
        self.policy == NetworkPolicy::Outbound
    }

    /// Connects the network namespace of this process.
    pub(crate) async fn attach(&mut self, _pid: u32) -> Result<()> {
        Ok(())
    }
}

/// Whether `outbound` can be had.
pub(crate) fn outbound_available() -> bool {
    false
}
