//! How the helper gets into containers: a volume that has nothing but its program, mounted read-only.
//!
//! The volume's name is a digest of the program, so all owners and versions share it, and none changes another's.
//! Several may fill it at once: the program gets its name only when all of it is there.

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use hm_vm_core::Error;
use hm_vm_sys::helper::{PROCESSOR, PROGRAM};
use tokio::sync::OnceCell;

use crate::backend::Machine;
use crate::container;
use crate::error::{DockerError, Doing as _};
use crate::objects;

/// Name of the program in its volume.
const FILE: &str = "helper";

/// Where the volume is in the container that it is filled through.
const DIRECTORY: &str = "/hm-vm";

/// The helper's volume in a daemon, as far as this process knows it.
#[derive(Debug, Default)]
pub(crate) struct HelperVolume {
    found: OnceCell<String>,
}

/// Name of the volume. It is made and filled where it is missing; one that is there may turn out to be empty when a
/// container starts, if somebody died while filling it: then [`refill`] it. Must be called on the engine's thread.
///
/// # Errors
///
/// [`Error::BackendUnavailable`] when the daemon's machine has another processor than the helper; or a failure of the daemon.
pub(crate) async fn volume(machine: &Machine) -> Result<String> {
    let name = machine.helper.found.get_or_try_init(|| ensure(machine));
    name.await.cloned()
}

/// Fills the volume again, after a start has shown that it is empty, or not what it should be. Must be called on the engine's thread.
///
/// # Errors
///
/// As [`volume`].
pub(crate) async fn refill(machine: &Machine) -> Result<()> {
    check_processor(machine)?;
    fill(machine, &name()).await
}

fn name() -> String {
    let digest = blake3::hash(PROGRAM).to_hex();
    format!("hm-vm-helper-{}", &digest[..16])
}

fn check_processor(machine: &Machine) -> Result<(), Error> {
    let info = machine.engine.info();
    if info.processor == PROCESSOR {
        return Ok(());
    }
    Err(Error::BackendUnavailable {
        backend: info.kind.name().into(),
        reason: format!(
            "the daemon's machine has a processor of {:?}, and this program comes with a helper for {PROCESSOR} only",
            info.processor
        ),
    })
}

async fn ensure(machine: &Machine) -> Result<String> {
    check_processor(machine)?;
    let name = name();
    let docker = machine.engine.docker();
    let found = docker
        .inspect_volume(&name)
        .await
        .doing(format!("looking for the volume {name}"));
    match found {
        Ok(_) => return Ok(name),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    fill(machine, &name).await?;
    Ok(name)
}

/// Through a container that is never started.
async fn fill(machine: &Machine, volume: &str) -> Result<()> {
    let docker = machine.engine.docker();
    let labels = [(objects::KIND.to_owned(), "helper".to_owned())];
    let request = VolumeCreateRequest {
        name: Some(volume.into()),
        labels: Some(labels.into()),
        ..VolumeCreateRequest::default()
    };
    docker
        .create_volume(request)
        .await
        .doing(format!("creating the volume {volume}"))
        .map_err(DockerError::contract)?;
    let image = crate::empty_image::ensure(machine).await?;
    let identity = machine.session.identity();
    let body = ContainerCreateBody {
        image: Some(image.id),
        cmd: Some(vec![FILE.into()]),
        labels: Some(identity.labels("helper")),
        host_config: Some(HostConfig {
            mounts: Some(vec![mount(volume)]),
            network_mode: Some("none".into()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let container = identity.container_name();
    let options = CreateContainerOptionsBuilder::new()
        .name(&container)
        .build();
    let doing = || format!("filling the volume {volume}");
    docker
        .create_container(Some(options), body)
        .await
        .doing(doing())
        .map_err(DockerError::contract)?;
    let uploaded = upload(docker, &container).await.with_context(doing);
    let removed = container::remove(docker, &container).await;
    uploaded?;
    removed
}

fn mount(volume: &str) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.into()),
        target: Some(DIRECTORY.into()),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

async fn upload(docker: &Docker, container: &str) -> Result<()> {
    let options = UploadToContainerOptionsBuilder::new()
        .path(DIRECTORY)
        .build();
    let archive = archive().context("packing the helper")?;
    docker
        .upload_to_container(container, Some(options), bollard::body_full(archive.into()))
        .await
        .doing("uploading the helper")
        .map_err(DockerError::contract)
}

/// The program under a name that nobody else uses, and then, as a second name of the same file, its own.
fn archive() -> std::io::Result<Vec<u8>> {
    let unique = format!("{FILE}-{}", objects::nonce());
    let header = |kind: tar::EntryType| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o555);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    let mut archive = tar::Builder::new(Vec::new());
    let mut program = header(tar::EntryType::Regular);
    program.set_size(PROGRAM.len() as u64);
    archive.append_data(&mut program, &unique, PROGRAM)?;
    let mut link = header(tar::EntryType::Link);
    link.set_size(0);
    archive.append_link(&mut link, FILE, &unique)?;
    archive.into_inner()
}
