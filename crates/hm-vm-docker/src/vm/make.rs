//! VMs from images and snapshots.

use std::sync::Arc;

use anyhow::Result;
use hm_vm_core::{Error, SnapshotId, Vm, VmConfig};

use super::DockerVm;
use super::state::is_gone;
use crate::backend::Machine;
use crate::{image, limits, pull, snapshot};

/// Boots a VM from an image.
pub(crate) async fn create(
    machine: &Arc<Machine>,
    image: &str,
    config: &VmConfig,
) -> Result<Box<dyn Vm>> {
    check(machine, config)?;
    let (owner, name, config) = (Arc::clone(machine), image.to_owned(), config.clone());
    let vm = machine.engine.run(async move {
        let base = pull::ensure(&owner, &name).await?;
        image::check_platform(&owner, &name, &base)?;
        let base = snapshot::usable(&owner, base).await?;
        let made = DockerVm::new(&owner, base, config).await;
        made.map_err(|error| missing(error, Error::ImageNotFound { image: name }))
    });
    Ok(Box::new(vm.await?))
}

/// Forks a VM from a snapshot.
pub(crate) async fn restore(
    machine: &Arc<Machine>,
    snapshot: &SnapshotId,
    config: &VmConfig,
) -> Result<Box<dyn Vm>> {
    check(machine, config)?;
    let (owner, snapshot, config) = (Arc::clone(machine), snapshot.clone(), config.clone());
    let vm = machine.engine.run(async move {
        let not_found = || Error::SnapshotNotFound {
            snapshot: snapshot.clone(),
        };
        if !owner.presence.exists(&snapshot).await? {
            return Err(not_found().into());
        }
        let base = match owner.images.get(&snapshot) {
            Some(base) => base,
            None => {
                let found = image::inspect(&owner.engine, &snapshot).await?;
                let found = found.ok_or_else(not_found)?;
                owner.images.add(&found);
                found
            }
        };
        let base = snapshot::usable(&owner, base).await?;
        let made = DockerVm::new(&owner, base, config).await;
        made.map_err(|error| missing(error, not_found()))
    });
    Ok(Box::new(vm.await?))
}

/// Refuses what the daemon cannot do.
fn check(machine: &Machine, config: &VmConfig) -> Result<(), Error> {
    let info = machine.engine.info();
    limits::capabilities(info).check(config, |limit| {
        limits::refusal(info, limit).unwrap_or_default()
    })
}

/// `instead` where the daemon says that something is not there: the image went away a moment ago.
fn missing(error: anyhow::Error, instead: Error) -> anyhow::Error {
    if is_gone(&error) {
        return instead.into();
    }
    error
}
