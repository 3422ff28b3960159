//! Images of one layer.
//!
//! Daemons refuse images of more than 127 layers, and slow down before. What has as many as [`MOST_LAYERS`] is written out whole, and
//! read in again as one layer. So are images with volumes: what is written to these is in no snapshot.

use std::sync::Arc;

use anyhow::Result;
use bollard::body_try_stream;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, CreateImageOptionsBuilder};
use futures_util::StreamExt as _;

use super::commit::{CommitRequest, patient, send};
use super::config::About;
use super::remove::remove_name;
use crate::backend::Machine;
use crate::container;
use crate::engine::Engine;
use crate::error::{DockerError, Doing as _};
use crate::image::{self, BaseImage};
use crate::objects::{self, nonce};

/// An image with as many layers gets no further one. The daemons' own limit is 127, and what comes on top when a container is made.
const MOST_LAYERS: usize = 100;

/// Layers of an image that is made of one: Podman's commit adds one where there are no changes, too.
pub(super) const FLAT_LAYERS: usize = 2;

/// Whether no layer should be added.
pub(super) fn is_deep(image: &BaseImage) -> bool {
    image.layers >= MOST_LAYERS
}

/// The tag of what is used in place of an image that cannot be used as it is.
pub(super) fn prepared_tag(id: &str) -> String {
    format!("p-{}", id.strip_prefix("sha256:").unwrap_or(id))
}

/// The image to make containers of where `base` is meant: mostly itself; one of the same files where it has too many
/// layers, or volumes. That is made once.
///
/// # Errors
///
/// [`hm_vm_core::Error::NoSpace`], or a failure of the daemon.
pub(crate) async fn usable(machine: &Arc<Machine>, base: BaseImage) -> Result<BaseImage> {
    let volumes = base.config.volumes.as_ref();
    if !is_deep(&base) && volumes.is_none_or(Vec::is_empty) {
        return Ok(base);
    }
    let (owned, engine) = (Arc::clone(machine), machine.engine.clone());
    engine
        .run(async move { prepared(&owned, &base).await })
        .await
}

async fn prepared(machine: &Arc<Machine>, base: &BaseImage) -> Result<BaseImage> {
    let identity = machine.session.identity();
    let repository = identity.repository_in(machine.engine.info().kind);
    let tag = prepared_tag(&base.id);
    let name = format!("{repository}:{tag}");
    if let Some(found) = image::inspect(&machine.engine, &name).await? {
        let labels = found.config.labels.as_ref();
        if labels.and_then(|labels| labels.get(objects::PARENT)) == Some(&base.id) {
            return Ok(found);
        }
    }
    let mut scratch = Scratch::new(machine);
    let id = base.id.clone();
    let container = scratch.create(machine, &id).await?;
    let about = About::new(identity, "prepared", base);
    let id = flatten(machine, &container, &about, &repository, &tag).await?;
    Ok(BaseImage {
        id,
        layers: FLAT_LAYERS,
        config: about.config(),
        tags: vec![name],
        ..base.clone()
    })
}

/// What is needed on the way. Dropping it removes that, in order.
struct Scratch {
    engine: Engine,
    container: Option<String>,
    image: Option<String>,
}

impl Scratch {
    fn new(machine: &Machine) -> Self {
        Self {
            engine: machine.engine.clone(),
            container: None,
            image: None,
        }
    }

    /// Makes a container that is never started, and returns its name.
    async fn create(&mut self, machine: &Machine, image: &str) -> Result<String> {
        let identity = machine.session.identity();
        let name = identity.container_name();
        // Before the request: what becomes of that is not known when the connection breaks.
        self.container = Some(name.clone());
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            // There must be something; it does not matter what.
            entrypoint: Some(vec!["/hm-vm-never-run".into()]),
            cmd: Some(Vec::new()),
            labels: Some(identity.labels("flat")),
            host_config: Some(HostConfig {
                network_mode: Some("none".into()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        self.engine
            .docker()
            .create_container(Some(options), body)
            .await
            .doing(format!("creating a container of {image} to read it"))
            .map_err(DockerError::contract)?;
        Ok(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (container, image) = (self.container.take(), self.image.take());
        if container.is_none() && image.is_none() {
            return;
        }
        let docker = self.engine.docker().clone();
        let what = "removing what making an image of one layer needed";
        self.engine.later(what, async move {
            if let Some(name) = container {
                container::remove(&docker, &name).await?;
            }
            if let Some(name) = image {
                remove_name(&docker, &name).await?;
            }
            Ok(())
        });
    }
}

/// Makes an image of one layer with the files of a container, and returns its id.
pub(super) async fn flatten(
    machine: &Machine,
    container: &str,
    about: &About,
    repository: &str,
    tag: &str,
) -> Result<String> {
    let mut scratch = Scratch::new(machine);
    let session = &machine.session.identity().session;
    let name = format!("{repository}:w-{session}-{}", nonce());
    scratch.image = Some(name.clone());
    read_in(&machine.engine, container, &name).await?;
    // An archive says nothing but files: the rest comes with a commit. Instructions that could come with an archive are
    // not enough: Podman takes one, and Docker's cannot say everything.
    let container = scratch.create(machine, &name).await?;
    let request = CommitRequest {
        container: &container,
        repository,
        tag,
    };
    send(&machine.engine, &request, about).await
}

/// Sends the daemon the files of one of its containers, as an image of this name.
async fn read_in(engine: &Engine, container: &str, name: &str) -> Result<()> {
    let docker = patient(engine.docker());
    let files = docker
        .export_container(container)
        .map(|part| part.map_err(std::io::Error::other));
    // The tag as a part of the name: Podman does not read the other one.
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(name);
    let doing = || format!("making one layer of the files of container {container}");
    let body = body_try_stream(files);
    let mut answers = docker.create_image(Some(options.build()), Some(body), None);
    while let Some(answer) = answers.next().await {
        answer.doing(doing()).map_err(DockerError::contract)?;
    }
    Ok(())
}
