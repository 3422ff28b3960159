//! Named cache directories: volumes of the daemon.
//!
//! A cache's volume is named after a hash of its name, and has the name itself as a label. It belongs to the owner, and
//! outlives sessions. The daemon keeps a volume that a container has from being removed: there is no lock of ours.

use std::collections::HashMap;

use anyhow::Result;
use bollard::Docker;
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{DataUsageOptionsBuilder, ListVolumesOptionsBuilder};
use hm_vm_core::Error;

use crate::backend::DockerBackend;
use crate::error::{DockerError, Doing as _};
use crate::objects::{self, Identity};

/// Bytes of the longest name, as in the store of the sandbox.
const LONGEST_NAME: usize = 200;

/// First version of the API whose usage of the disk names volumes one by one in a form that is understood here.
const USAGE_OF_VOLUMES: (usize, usize) = (1, 52);

/// A named cache directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheVolume {
    /// The name that it was asked for by. `None` where the daemon has lost it: somebody else made the volume.
    pub name: Option<String>,
    /// The daemon's name of the volume.
    pub volume: String,
    /// Bytes of its files, where the daemon tells.
    pub bytes: Option<u64>,
}

impl DockerBackend {
    /// All named cache directories of this owner, by name.
    ///
    /// # Errors
    ///
    /// A failure of the daemon.
    pub async fn caches(&self) -> Result<Vec<CacheVolume>> {
        let engine = &self.machine.engine;
        let docker = engine.docker().clone();
        let prefix = volume_prefix(self.machine.session.identity());
        let tells_sizes = engine.info().api >= USAGE_OF_VOLUMES;
        engine
            .run(async move { list(&docker, &prefix, tells_sizes).await })
            .await
    }

    /// Removes a named cache directory and its files. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] while a VM has it, or for a name that none can have; otherwise a
    /// failure of the daemon.
    pub async fn remove_cache(&self, name: &str) -> Result<bool> {
        let engine = &self.machine.engine;
        let docker = engine.docker().clone();
        let volume = volume_name(self.machine.session.identity(), name)?;
        let name = name.to_owned();
        engine
            .run(async move { remove(&docker, &volume, &name).await })
            .await
    }
}

/// What the volumes of an owner's caches begin with.
fn volume_prefix(identity: &Identity) -> String {
    format!("hm-vm-{}-cache-", identity.owner)
}

/// The volume of a cache.
///
/// # Errors
///
/// [`Error::InvalidInput`] for a name that no backend takes.
pub(crate) fn volume_name(identity: &Identity, name: &str) -> Result<String, Error> {
    let reason = if name.is_empty() {
        "its name is empty"
    } else if name.len() > LONGEST_NAME {
        "its name is longer than 200 bytes"
    } else if name.contains('\0') {
        "its name contains NUL"
    } else {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        return Ok(format!("{}{}", volume_prefix(identity), &hash[..32]));
    };
    Err(Error::InvalidInput {
        what: format!("cache {name:?}"),
        reason: reason.into(),
    })
}

/// Makes the volume of a cache, unless it is there. It is asked for each time: a volume that a container brings
/// into being by itself, because somebody has removed it meanwhile, has no labels.
pub(crate) async fn ensure(docker: &Docker, identity: &Identity, name: &str) -> Result<String> {
    let volume = volume_name(identity, name)?;
    let mut labels = identity.lasting_labels("cache");
    labels.insert(objects::CACHE.into(), name.to_owned());
    let request = VolumeCreateRequest {
        name: Some(volume.clone()),
        labels: Some(labels),
        ..VolumeCreateRequest::default()
    };
    docker
        .create_volume(request)
        .await
        .doing(format!("creating a volume for the cache {name:?}"))
        .map_err(DockerError::contract)?;
    Ok(volume)
}

async fn list(docker: &Docker, prefix: &str, tells_sizes: bool) -> Result<Vec<CacheVolume>> {
    let filters = HashMap::from([("name", vec![prefix])]);
    let options = ListVolumesOptionsBuilder::default()
        .filters(&filters)
        .build();
    let listed = docker
        .list_volumes(Some(options))
        .await
        .doing("listing the volumes of caches")?;
    let sizes = match tells_sizes {
        true => sizes(docker).await?,
        false => HashMap::new(),
    };
    let volumes = listed.volumes.unwrap_or_default();
    let mut caches: Vec<CacheVolume> = volumes
        .into_iter()
        // The daemon's filter looks for the text anywhere in a name.
        .filter(|volume| volume.name.starts_with(prefix))
        .map(|mut volume| CacheVolume {
            name: volume.labels.remove(objects::CACHE),
            bytes: sizes.get(&volume.name).copied(),
            volume: volume.name,
        })
        .collect();
    caches.sort_unstable_by(|a, b| (&a.name, &a.volume).cmp(&(&b.name, &b.volume)));
    Ok(caches)
}

/// Bytes of volumes. Those that the daemon cannot tell are left out.
async fn sizes(docker: &Docker) -> Result<HashMap<String, u64>> {
    let options = DataUsageOptionsBuilder::new()
        ._type(vec!["volume".into()])
        .verbose(true)
        .build();
    let usage = docker
        .df(Some(options))
        .await
        .doing("asking for the sizes of volumes")?;
    let items = usage.volume_usage.and_then(|usage| usage.items);
    let size = |item: serde_json::Value| {
        let name = item.get("Name")?.as_str()?.to_owned();
        let bytes = item.get("UsageData")?.get("Size")?.as_u64()?;
        Some((name, bytes))
    };
    Ok(items
        .unwrap_or_default()
        .into_iter()
        .filter_map(size)
        .collect())
}

async fn remove(docker: &Docker, volume: &str, name: &str) -> Result<bool> {
    let removed = docker
        .remove_volume(
            volume,
            None::<bollard::query_parameters::RemoveVolumeOptions>,
        )
        .await
        .doing(format!("removing the volume of the cache {name:?}"));
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) if error.is_conflict() => Err(Error::InvalidInput {
            what: format!("cache {name:?}"),
            reason: "it is in use".into(),
        }
        .into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            owner: "00aa".into(),
            session: "1".into(),
        }
    }

    #[test]
    fn any_name_makes_a_volume_of_its_own() {
        let volume = |name: &str| volume_name(&identity(), name).unwrap();
        for name in ["cargo", "a/b:c,d", "Ä \n", &"x".repeat(200)] {
            let made = volume(name);
            let hash = made.strip_prefix("hm-vm-00aa-cache-").unwrap();
            assert_eq!(hash.len(), 32, "{name:?}");
            assert!(hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        assert_ne!(volume("a"), volume("b"));
    }

    #[test]
    fn names_that_the_store_refuses_are_refused_here() {
        for name in ["", "a\0", &"x".repeat(201)] {
            assert!(volume_name(&identity(), name).is_err(), "{name:?}");
        }
    }
}
