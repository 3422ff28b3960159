//! Looking at what an inject would bring.

use anyhow::{Context as _, Result};
use hm_vm_core::{InjectEntry, InjectSource};
use hm_vm_store::StoreError;
use hm_vm_store::inject::{InjectError, StatCache, Tree, listed, scan_source};

use crate::backend::Machine;

/// Digest of what an inject would bring, in the terms of the store.
pub(crate) async fn digest_of(machine: &Machine, source: &InjectSource) -> Result<String> {
    Ok(scan(machine, source).await?.digest().to_owned())
}

/// What an inject would bring.
pub(crate) async fn entries(machine: &Machine, source: &InjectSource) -> Result<Vec<InjectEntry>> {
    Ok(listed(&scan(machine, source).await?))
}

/// Scans a directory. Files that did not change since the last scan are not read.
pub(super) async fn scan(machine: &Machine, source: &InjectSource) -> Result<Tree> {
    let cache = StatCache::new(machine.session.directory().join("stat-cache"));
    let source = source.clone();
    let scanned = machine.engine.run(async move {
        tokio::task::spawn_blocking(move || scan_source(&source, &cache))
            .await
            .context("reading the files to inject")?
            .map_err(contract)
    });
    scanned.await
}

/// The contract's error where it has one, so that `downcast_ref` finds it.
pub(super) fn contract(error: InjectError) -> anyhow::Error {
    let error = StoreError::from(error);
    match error.contract() {
        Some(contract) => contract.into(),
        None => error.into(),
    }
}
