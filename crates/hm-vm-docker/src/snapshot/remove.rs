//! Removing snapshots, and freeing what nothing needs any more.

use std::time::Duration;

use anyhow::Result;
use bollard::Docker;
use bollard::models::ImageInspect;
use bollard::query_parameters::{RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use hm_vm_core::SnapshotId;

use super::commit::full_id;
use super::config::comment;
use super::flat;
use crate::backend::Machine;
use crate::engine::EngineKind;
use crate::error::{DockerError, Doing as _};
use crate::image;
use crate::objects::{self, Identity, nonce};

/// Between attempts to free an image: of two containers that go at once, each may find it used by the other.
const RELEASE_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];

/// What became of a name that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    /// It is gone; so is the image, if nothing else needs it.
    Gone,
    /// A container uses the image, and it is the last name: it stays.
    InUse,
}

/// Removes a snapshot, and frees what nothing else needs. Does nothing when there is no such snapshot.
///
/// # Errors
///
/// A failure of the daemon.
pub(crate) async fn remove(machine: &Machine, snapshot: &SnapshotId) -> Result<()> {
    machine.presence.removed(snapshot);
    let removed = machine.engine.run(removal(machine, snapshot)).await;
    machine.presence.removed(snapshot);
    removed
}

/// The work of that, for the engine's thread.
pub(super) fn removal(
    machine: &Machine,
    snapshot: &SnapshotId,
) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
    let docker = machine.engine.docker().clone();
    let identity = machine.session.identity().clone();
    let kind = machine.engine.info().kind;
    let id = full_id(snapshot).filter(|id| id == snapshot.as_ref());
    async move {
        match id {
            Some(id) => remove_snapshot(&docker, &identity, kind, &id).await,
            None => Ok(()),
        }
    }
}

async fn remove_snapshot(
    docker: &Docker,
    identity: &Identity,
    kind: EngineKind,
    id: &str,
) -> Result<()> {
    let Some(image) = inspect(docker, id).await? else {
        return Ok(());
    };
    let tags = image.repo_tags.unwrap_or_default();
    let mut was_snapshot = false;
    for tag in tags.iter().filter(|tag| identity.is_snapshot_tag(tag)) {
        was_snapshot = true;
        if remove_name(docker, tag).await? == Removed::InUse {
            // With another name beside it, this one can go; `release` takes that one when the container is gone.
            let gone = format!("g-{}", nonce());
            let repository = identity.repository_in(kind);
            if rename(docker, id, &repository, &gone).await? {
                remove_name(docker, tag).await?;
                remove_name(docker, &format!("{repository}:{gone}")).await?;
            }
        }
    }
    if was_snapshot {
        // Made for it alone.
        let prepared = flat::prepared_tag(id);
        let name = format!("{}:{prepared}", identity.repository_in(kind));
        remove_name(docker, &name).await?;
    }
    Ok(())
}

/// Gives an image another name. `false` when it is gone.
async fn rename(docker: &Docker, id: &str, repository: &str, tag: &str) -> Result<bool> {
    let options = TagImageOptionsBuilder::new()
        .repo(repository)
        .tag(tag)
        .build();
    let doing = format!("naming image {id} {repository}:{tag}");
    match docker.tag_image(id, Some(options)).await.doing(doing) {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.contract()),
    }
}

/// Removes a name of an image, and the image when that was the last one and nothing needs it; its unnamed parents with it. That it is gone
/// already is no failure.
///
/// # Errors
///
/// A failure of the daemon.
pub(crate) async fn remove_name(docker: &Docker, name: &str) -> Result<Removed> {
    let options = RemoveImageOptionsBuilder::new()
        .force(false)
        .noprune(false)
        .build();
    let removed = docker
        .remove_image(name, Some(options), None)
        .await
        .doing(format!("removing image {name}"));
    match removed {
        Ok(_) => Ok(Removed::Gone),
        Err(error) if error.is_not_found() => Ok(Removed::Gone),
        Err(error) if error.is_conflict() => Ok(Removed::InUse),
        Err(error) => Err(error.contract()),
    }
}

/// Frees an image of ours that a container used, after that is gone, if nothing else needs it: no snapshot, no other
/// container, no image made from it. Does nothing to images of others.
///
/// # Errors
///
/// A failure of the daemon.
pub(crate) async fn release(docker: &Docker, identity: &Identity, id: &str) -> Result<()> {
    for pause in RELEASE_PAUSES {
        if release_once(docker, identity, id).await? {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
    }
    release_once(docker, identity, id).await.map(drop)
}

/// Returns whether that is settled: not while a container uses the image, which may be one that is going.
async fn release_once(docker: &Docker, identity: &Identity, id: &str) -> Result<bool> {
    let Some(image) = inspect(docker, id).await? else {
        return Ok(true);
    };
    let tags = image.repo_tags.clone().unwrap_or_default();
    let passing = |name: &String| {
        let tag = identity.tag_of(name);
        tag.is_some_and(|tag| tag.starts_with("g-") || tag.starts_with("w-"))
    };
    if !tags.iter().all(passing) {
        return Ok(true);
    }
    let mut settled = true;
    for tag in &tags {
        settled &= remove_name(docker, tag).await? == Removed::Gone;
    }
    if tags.is_empty() && is_own(&image, identity) {
        settled &= remove_name(docker, id).await? == Removed::Gone;
    }
    Ok(settled)
}

/// Removes an image of ours that has no name, unless something needs it. Returns whether it is gone.
///
/// # Errors
///
/// A failure of the daemon.
pub(crate) async fn remove_unnamed(docker: &Docker, identity: &Identity, id: &str) -> Result<bool> {
    let Some(image) = inspect(docker, id).await? else {
        return Ok(true);
    };
    let tags = image.repo_tags.as_ref();
    if tags.is_some_and(|tags| !tags.is_empty()) || !is_own(&image, identity) {
        return Ok(false);
    }
    Ok(remove_name(docker, id).await? == Removed::Gone)
}

/// Whether this owner's backend has made the image. Its labels alone do not tell: images that others make from it inherit
/// them.
fn is_own(image: &ImageInspect, identity: &Identity) -> bool {
    let config = image.config.as_ref();
    let labels = config.and_then(|config| config.labels.as_ref());
    let label = |name| labels.and_then(|labels| labels.get(name)).cloned();
    label(objects::OWNER).as_ref() == Some(&identity.owner)
        && label(objects::NONCE)
            .is_some_and(|nonce| image.comment.as_deref() == Some(comment(&nonce).as_str()))
}

async fn inspect(docker: &Docker, id: &str) -> Result<Option<ImageInspect>> {
    match image::look(docker, id).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(DockerError::contract(error)),
    }
}
