//! Making a snapshot of a container.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bollard::Docker;
use bollard::query_parameters::CommitContainerOptionsBuilder;
use hm_vm_core::{SnapshotId, SnapshotLabel};

use super::config::About;
use super::flat;
use super::remove::{Removed, remove_name};
use crate::backend::Machine;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{DockerError, Doing as _};
use crate::image::BaseImage;
use crate::inject::Injects;
use crate::objects::{SESSION, nonce};
use crate::presence::{Mark, Presence};

/// Time until the daemon has read what is new in a container: as long as that takes, but not for ever.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(6 * 60 * 60);

/// Milliseconds between attempts to remove an image. What is in use after all of them, a later session removes.
const PAUSES_MS: [u64; 5] = [50, 200, 1000, 2000, 4000];

/// Name of an image of ours. Dropping it removes the name in the background, and the image with it when nothing else needs that.
#[derive(Debug)]
pub(crate) struct WorkingImage {
    engine: Engine,
    name: String,
}

impl WorkingImage {
    /// Before the image is made: whether it was is not known when the connection breaks.
    pub(super) fn new(engine: &Engine, name: String) -> Self {
        Self {
            engine: engine.clone(),
            name,
        }
    }

    /// Leaves it.
    fn keep(mut self) {
        self.name.clear();
    }
}

impl Drop for WorkingImage {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        if name.is_empty() {
            return;
        }
        let docker = self.engine.docker().clone();
        self.engine
            .later(format!("removing image {name}"), async move {
                // The container that uses it is being removed at the same time.
                for pause in PAUSES_MS {
                    if remove_name(&docker, &name).await? == Removed::Gone {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                Ok(())
            });
    }
}

/// A snapshot that nobody has taken yet. When it is dropped, there is none.
#[derive(Debug)]
pub(crate) struct Kept {
    image: BaseImage,
    name: WorkingImage,
    mark: Mark,
}

impl Kept {
    pub(crate) fn image(&self) -> &BaseImage {
        &self.image
    }

    /// It is the caller's from now on.
    pub(crate) fn take(self, presence: &Presence) -> SnapshotId {
        self.name.keep();
        presence.added(&self.image.id, self.mark);
        SnapshotId::new(self.image.id)
    }
}

/// Makes a snapshot of a container at rest, which was made from `base`. It says about containers what `base` says. When the future
/// is dropped, there is no snapshot.
///
/// # Errors
///
/// [`hm_vm_core::Error::NoSpace`], or a failure of the daemon.
pub(crate) async fn commit(
    machine: &Arc<Machine>,
    container: &Container,
    base: &BaseImage,
    label: &SnapshotLabel,
    injects: &Injects,
) -> Result<Kept> {
    let identity = machine.session.identity();
    let about = About::new(identity, "snapshot", base)
        .with_key(label)
        .with_injects(injects);
    let mark = machine.presence.mark();
    let tag = format!("s-{}", nonce());
    let (image, name) = make(machine, container, base, about, tag).await?;
    Ok(Kept { image, name, mark })
}

/// Keeps the state of a VM for its next container. The image goes when that is made and the returned name is dropped.
///
/// # Errors
///
/// As [`commit`].
pub(crate) async fn keep_working(
    machine: &Arc<Machine>,
    container: &Container,
    base: &BaseImage,
    injects: &Injects,
) -> Result<(BaseImage, WorkingImage)> {
    let identity = machine.session.identity();
    let about = About::new(identity, "working", base)
        .with_label(SESSION, &identity.session)
        .with_injects(injects);
    let tag = format!("w-{}-{}", identity.session, nonce());
    make(machine, container, base, about, tag).await
}

async fn make(
    machine: &Arc<Machine>,
    container: &Container,
    base: &BaseImage,
    about: About,
    tag: String,
) -> Result<(BaseImage, WorkingImage)> {
    let (machine, base) = (Arc::clone(machine), base.clone());
    let container = container.id().to_owned();
    let engine = machine.engine.clone();
    engine
        .run(async move {
            let kind = machine.engine.info().kind;
            let repository = machine.session.identity().repository_in(kind);
            let full = format!("{repository}:{tag}");
            let name = WorkingImage::new(&machine.engine, full.clone());
            let made = if flat::is_deep(&base) {
                let flat = flat::flatten(&machine, &container, &about, &repository, &tag).await?;
                (flat, flat::FLAT_LAYERS)
            } else {
                let request = CommitRequest {
                    container: &container,
                    repository: &repository,
                    tag: &tag,
                };
                let id = send(&machine.engine, &request, &about).await?;
                (id, base.layers + 1)
            };
            let image = BaseImage {
                id: made.0,
                layers: made.1,
                config: about.config(),
                tags: vec![full],
                ..base
            };
            Ok((image, name))
        })
        .await
}

pub(super) struct CommitRequest<'a> {
    pub(super) container: &'a str,
    pub(super) repository: &'a str,
    pub(super) tag: &'a str,
}

/// Returns the id of the image.
pub(super) async fn send(
    engine: &Engine,
    request: &CommitRequest<'_>,
    about: &About,
) -> Result<String> {
    let kind = engine.info().kind;
    let mut options = CommitContainerOptionsBuilder::new()
        .container(request.container)
        .repo(request.repository)
        .tag(request.tag)
        .comment(&about.comment)
        // Only the helper is alive, and it waits.
        .pause(false);
    if let Some(changes) = about.changes(kind) {
        options = options.changes(&changes);
    }
    let doing = || format!("making a snapshot of container {}", request.container);
    let made = patient(engine.docker())
        .commit_container(options.build(), about.body(kind))
        .await
        .doing(doing())
        .map_err(DockerError::contract)?;
    full_id(&made.id).ok_or_else(|| {
        DockerError::Nonsense {
            doing: doing(),
            detail: format!("{:?} is no id", made.id),
        }
        .into()
    })
}

/// A client for requests whose answer begins when the work is done.
pub(crate) fn patient(docker: &Docker) -> Docker {
    docker.clone().with_timeout(TIME_LIMIT)
}

/// `sha256:…`. Podman leaves the algorithm out.
pub(crate) fn full_id(id: &str) -> Option<String> {
    let digest = id.strip_prefix("sha256:").unwrap_or(id);
    let is_digest = digest.len() == 64
        && digest
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_digest.then(|| format!("sha256:{digest}"))
}
