//! Bringing files of the host into a container.

use anyhow::Result;
use hm_vm_core::{InjectEntry, InjectSource};

use crate::backend::{Machine, not_yet};

/// Digest of what an inject would bring, in the terms of the store.
pub(crate) async fn digest_of(machine: &Machine, source: &InjectSource) -> Result<String> {
    let _ = (machine, source);
    not_yet("digests of injects")
}

/// What an inject would bring.
pub(crate) async fn entries(machine: &Machine, source: &InjectSource) -> Result<Vec<InjectEntry>> {
    let _ = (machine, source);
    not_yet("entries of injects")
}
