//! What snapshots there are.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use bollard::models::ImageSummary;
use hm_vm_core::SnapshotId;

use super::commit::full_id;
use crate::backend::DockerBackend;
use crate::engine::Engine;
use crate::objects::{self, Identity};

/// What is known of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotFacts {
    /// Its id: `sha256:` and the digest of the image.
    pub id: SnapshotId,
    /// The snapshot or image that it was made from.
    pub parent: Option<String>,
    /// The key that it was made for; its first kilobyte where it is longer. Control characters are replaced.
    pub key: Option<String>,
    /// When it was made.
    pub created: SystemTime,
    /// Bytes of all its layers together.
    pub bytes: u64,
    /// Bytes of what it has beyond what it was made from; all its bytes where that is gone.
    pub own_bytes: u64,
}

impl DockerBackend {
    /// The snapshots of this owner in this daemon, the oldest first. Blocks.
    ///
    /// # Errors
    ///
    /// A failure of the daemon.
    pub fn snapshots(&self) -> Result<Vec<SnapshotFacts>> {
        let engine = self.machine.engine.clone();
        let identity = self.machine.session.identity().clone();
        self.machine
            .engine
            .run_blocking(async move { list(&engine, &identity).await })
    }

    /// As [`remove_snapshot`](hm_vm_core::VmBackend::remove_snapshot), for callers without a runtime. Blocks.
    ///
    /// # Errors
    ///
    /// A failure of the daemon.
    pub fn remove_snapshot_blocking(&self, snapshot: &SnapshotId) -> Result<()> {
        let presence = &self.machine.presence;
        presence.removed(snapshot);
        let work = super::remove::removal(&self.machine, snapshot);
        let removed = self.machine.engine.run_blocking(work);
        presence.removed(snapshot);
        removed
    }
}

async fn list(engine: &Engine, identity: &Identity) -> Result<Vec<SnapshotFacts>> {
    let images = crate::lists::images(engine.docker()).await?;
    Ok(facts(&images, identity))
}

fn facts(images: &[ImageSummary], identity: &Identity) -> Vec<SnapshotFacts> {
    let bytes = |image: &ImageSummary| u64::try_from(image.size).unwrap_or_default();
    let sizes: HashMap<String, u64> = images
        .iter()
        .filter_map(|image| Some((full_id(&image.id)?, bytes(image))))
        .collect();
    let mut found: Vec<SnapshotFacts> = images
        .iter()
        .filter(|image| {
            let mut tags = image.repo_tags.iter();
            tags.any(|tag| identity.is_snapshot_tag(tag))
        })
        .filter_map(|image| {
            let label = |name| image.labels.get(name).filter(|value| !value.is_empty());
            let parent = label(objects::PARENT)
                .cloned()
                .or_else(|| full_id(&image.parent_id));
            let below = parent.as_ref().and_then(|parent| sizes.get(parent));
            let age = Duration::from_secs(u64::try_from(image.created).unwrap_or_default());
            Some(SnapshotFacts {
                id: SnapshotId::new(full_id(&image.id)?),
                key: label(objects::KEY).cloned(),
                created: SystemTime::UNIX_EPOCH.checked_add(age)?,
                bytes: bytes(image),
                own_bytes: bytes(image).saturating_sub(below.copied().unwrap_or_default()),
                parent,
            })
        })
        .collect();
    found.sort_by(|one, other| {
        (one.created, one.id.as_ref()).cmp(&(other.created, other.id.as_ref()))
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: char, tags: &[&str], size: i64, parent: Option<char>) -> ImageSummary {
        let id_of = |digit: char| format!("sha256:{}", digit.to_string().repeat(64));
        let parent = parent.map(|parent| (objects::PARENT.to_owned(), id_of(parent)));
        ImageSummary {
            id: id_of(id),
            repo_tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            size,
            created: 1,
            labels: parent.into_iter().collect(),
            ..ImageSummary::default()
        }
    }

    #[test]
    fn own_bytes_are_those_beyond_the_parent() {
        let identity = Identity {
            owner: "00aa".into(),
            session: "1".into(),
        };
        let images = [
            image('a', &["alpine:3"], 100, None),
            image('b', &["hm-vm-00aa:s-1", "mine:1"], 130, Some('a')),
            image('c', &["hm-vm-00aa:s-2"], 120, Some('f')),
            image('d', &["hm-vm-00aa:w-2", "hm-vm-00bb:s-1"], 120, Some('a')),
            image('e', &["hm-vm-00aa:s-3"], 10, Some('a')),
        ];
        let facts = facts(&images, &identity);
        let own: Vec<_> = facts.iter().map(|one| (one.bytes, one.own_bytes)).collect();
        assert_eq!(own, [(130, 30), (120, 120), (10, 0)]);
    }
}
