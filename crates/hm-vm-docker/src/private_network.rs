//! A network that several containers share.

use std::sync::Arc;

use anyhow::Result;
use hm_vm_core::{PrivateNetwork, PrivateNetworkRequest};

use crate::backend::{Machine, not_yet};

pub(crate) async fn make(
    machine: &Arc<Machine>,
    request: &PrivateNetworkRequest,
) -> Result<Arc<dyn PrivateNetwork>> {
    let _ = (machine, request);
    not_yet("a network shared by several VMs")
}
