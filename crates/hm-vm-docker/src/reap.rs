//! Removing what dead sessions left.
//!
//! What ends with a session is a container, or an image with a tag `w-…`, that names the session. What was a snapshot, and a container
//! used still when it was removed, has a tag `g-…`. An image without any name is left where a process died between two requests.
//! None of it is anybody else's: each names the owner.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use bollard::Docker;
use bollard::models::{ContainerSummary, ImageSummary};

use crate::backend::{DockerBackend, Machine};
use crate::objects::{Identity, KIND, OWNER, PARENT, SESSION};
use crate::secrets;
use crate::session::{DeadSession, Sessions};
use crate::snapshot::{self, Removed};
use crate::{container, lists};

/// An image without a name may be one that is being made: it gets its name a moment later.
const YOUNG: Duration = Duration::from_secs(60 * 60);

/// A pass is two lists.
const MOST_PASSES: usize = 4;

/// Removes in the background what dead sessions of this owner left.
pub(crate) fn reap_dead(machine: &Arc<Machine>) {
    let reaper = Reaper::new(machine);
    secrets::remove_dead(&reaper.identity, &reaper.sessions);
    machine
        .engine
        .later("removing what dead sessions left", async move {
            reaper.reap().await?;
            Ok(())
        });
}

impl DockerBackend {
    /// What dead sessions of this owner left in the daemon and is still there, in words. Blocks.
    ///
    /// # Errors
    ///
    /// A failure of the daemon.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let reaper = Reaper::new(&self.machine);
        let found = async move { reaper.find().await };
        let found = self.machine.engine.run_blocking(found)?;
        Ok(found.left.iter().map(Left::words).collect())
    }

    /// Removes that, and images that were prepared from others which are gone. Blocks. Returns how many things are gone.
    ///
    /// # Errors
    ///
    /// A failure of the daemon. What could be removed is gone nevertheless.
    pub fn collect_leftovers(&self) -> Result<u64> {
        let reaper = Reaper::new(&self.machine);
        self.machine
            .engine
            .run_blocking(async move { reaper.reap().await })
    }
}

/// What is needed to reap: no handle of the engine, which the work must not keep.
struct Reaper {
    docker: Docker,
    identity: Identity,
    sessions: Sessions,
}

/// One thing that is left.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Left {
    /// By name, and what it was for.
    Container(String, String),
    /// A name.
    Image(String),
    /// An id.
    Unnamed(String),
}

impl Left {
    fn words(&self) -> String {
        match self {
            Self::Container(name, kind) if kind.is_empty() => format!("container {name}"),
            Self::Container(name, kind) => format!("container {name} ({kind})"),
            Self::Image(name) => format!("image {name}"),
            Self::Unnamed(id) => format!("unnamed image {id}"),
        }
    }
}

/// What is left, in the order in which it can be removed; and the sessions that left it, held.
#[derive(Debug, Default)]
struct Found {
    left: Vec<Left>,
    dead: HashMap<String, Option<DeadSession>>,
}

impl Found {
    fn is_dead(&mut self, session: &str, sessions: &Sessions) -> bool {
        let held = self
            .dead
            .entry(session.to_owned())
            .or_insert_with(|| sessions.take(session));
        held.is_some()
    }
}

impl Reaper {
    fn new(machine: &Machine) -> Self {
        Self {
            docker: machine.engine.docker().clone(),
            identity: machine.session.identity().clone(),
            sessions: machine.session.sessions().clone(),
        }
    }

    /// What stood on something that is gone can go then: so as long as anything goes.
    async fn reap(&self) -> Result<u64> {
        let mut count = 0;
        for _ in 0..MOST_PASSES {
            let removed = self.pass().await?;
            count += removed;
            if removed == 0 {
                break;
            }
        }
        Ok(count)
    }

    async fn pass(&self) -> Result<u64> {
        let found = self.find().await?;
        let (mut count, mut failure) = (0, None);
        for left in &found.left {
            match self.remove(left).await {
                Ok(removed) => count += u64::from(removed),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        for dead in found.dead.into_values().flatten() {
            dead.forget();
        }
        Ok(count)
    }

    async fn remove(&self, left: &Left) -> Result<bool> {
        match left {
            Left::Container(name, _) => {
                container::remove(&self.docker, name).await?;
                Ok(true)
            }
            Left::Image(name) => {
                Ok(snapshot::remove_name(&self.docker, name).await? == Removed::Gone)
            }
            Left::Unnamed(id) => snapshot::remove_unnamed(&self.docker, &self.identity, id).await,
        }
    }

    async fn find(&self) -> Result<Found> {
        let mut found = Found::default();
        let containers = lists::containers(&self.docker).await?;
        let mut used = HashSet::new();
        for container in &containers {
            let left = self.left_container(container, &mut found);
            if let Some(left) = left {
                found.left.push(left);
            } else {
                let image = container.image_id.as_deref();
                used.extend(image.and_then(snapshot::full_id));
            }
        }
        let images = lists::images(&self.docker).await?;
        let ids: HashSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        used.extend(
            images
                .iter()
                .filter_map(|image| snapshot::full_id(&image.parent_id)),
        );
        for image in images.iter().filter(|image| !used.contains(&image.id)) {
            self.look_at_image(image, &ids, &mut found);
        }
        for session in self.sessions.known()? {
            found.is_dead(&session, &self.sessions);
        }
        Ok(found)
    }

    /// What is left of a dead session in a container, if it is one of this owner's.
    fn left_container(&self, container: &ContainerSummary, found: &mut Found) -> Option<Left> {
        let label = |name| {
            let labels = container.labels.as_ref()?;
            labels.get(name).map(String::as_str)
        };
        if label(OWNER) != Some(&self.identity.owner) {
            return None;
        }
        // Empty in containers that somebody else makes from a snapshot.
        let session = label(SESSION).filter(|session| !session.is_empty())?;
        let name = container.names.as_ref()?.first()?;
        let name = name.strip_prefix('/').unwrap_or(name);
        let is_named = name.starts_with(&self.identity.container_prefix());
        (is_named && found.is_dead(session, &self.sessions))
            .then(|| Left::Container(name.to_owned(), label(KIND).unwrap_or_default().into()))
    }

    /// What is left in an image that no container uses, and no image is made from.
    fn look_at_image(&self, image: &ImageSummary, ids: &HashSet<&str>, found: &mut Found) {
        let is_own = image.labels.get(OWNER) == Some(&self.identity.owner);
        // Podman has `<none>:<none>` there.
        let mut tags = image.repo_tags.iter();
        if is_own && !tags.any(|tag| !tag.starts_with("<none>")) && is_old(image.created) {
            found.left.push(Left::Unnamed(image.id.clone()));
        }
        for name in &image.repo_tags {
            let Some((kind, rest)) = self
                .identity
                .tag_of(name)
                .and_then(|tag| tag.split_once('-'))
            else {
                continue;
            };
            let is_left = match kind {
                "g" => true,
                "w" => rest
                    .split('-')
                    .next()
                    .is_some_and(|session| found.is_dead(session, &self.sessions)),
                "p" => {
                    let from = image.labels.get(PARENT);
                    from.is_some_and(|from| !ids.contains(from.as_str()))
                }
                _ => false,
            };
            if is_left {
                found.left.push(Left::Image(name.clone()));
            }
        }
    }
}

/// Whether an image is as old as nothing is that gets its name in a moment.
fn is_old(created: i64) -> bool {
    let created = u64::try_from(created).unwrap_or_default();
    let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(created));
    age.is_ok_and(|age| age > YOUNG)
}
