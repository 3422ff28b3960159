//! Images of the daemon, as VMs start from them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bollard::Docker;
use bollard::models::{ImageConfig, ImageInspect};
use hm_vm_core::Error;
use hm_vm_oci::Platform;

use crate::backend::Machine;
use crate::engine::Engine;
use crate::error::{DockerError, Doing as _};

/// What a VM can start from.
#[derive(Clone, Debug)]
pub(crate) struct BaseImage {
    /// `sha256:…`.
    pub(crate) id: String,
    /// How many layers it has.
    pub(crate) layers: usize,
    /// What holds for commands that name nothing else.
    pub(crate) defaults: ImageDefaults,
    /// All that it says about containers of it.
    pub(crate) config: ImageConfig,
    /// Its names in the daemon.
    pub(crate) tags: Vec<String>,
    /// Bytes of all its layers.
    pub(crate) size: u64,
    /// What its programs run on, where it says so.
    pub(crate) platform: Option<Platform>,
}

/// What an image says about commands that name nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageDefaults {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) user: Option<String>,
    pub(crate) working_dir: Option<String>,
}

impl ImageDefaults {
    fn of(config: &ImageConfig) -> Self {
        let named = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let env = config.env.iter().flatten();
        Self {
            env: env
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            user: named(&config.user),
            working_dir: named(&config.working_dir),
        }
    }
}

/// Images that were looked at, by id: what an id stands for never changes, but whether it is there, and its names.
#[derive(Debug, Default)]
pub(crate) struct ImageCache(Mutex<HashMap<String, BaseImage>>);

/// Images that are remembered. When there are more, all are forgotten: an inspection is cheap.
const MOST_REMEMBERED: usize = 1024;

impl ImageCache {
    pub(crate) fn get(&self, id: &str) -> Option<BaseImage> {
        self.map().get(id).cloned()
    }

    pub(crate) fn add(&self, image: &BaseImage) {
        let mut images = self.map();
        if images.len() >= MOST_REMEMBERED {
            images.clear();
        }
        images.insert(image.id.clone(), image.clone());
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, BaseImage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between attempts to look at an image that is being removed, perhaps.
const LOOK_PAUSES: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// Looks an image up by a name or id. `None` when the daemon does not have it, or the name can be none.
pub(crate) async fn inspect(engine: &Engine, name: &str) -> Result<Option<BaseImage>> {
    let Some(escaped) = escape(name) else {
        return Ok(None);
    };
    match look(engine.docker(), &escaped).await {
        Ok(found) => of(name, found).map(Some),
        Err(error) if error.is_not_found() || error.status() == Some(400) => Ok(None),
        Err(error) => Err(error.contract()),
    }
}

/// Looks at an image. What is being removed fails in many ways before it is gone: it is looked at again.
///
/// # Errors
///
/// A failure of the daemon, [`is_not_found`](DockerError::is_not_found) among them.
pub(crate) async fn look(docker: &Docker, name: &str) -> Result<ImageInspect, DockerError> {
    let mut pauses = LOOK_PAUSES.into_iter();
    loop {
        let looked = docker.inspect_image(name).await;
        let looked = looked.doing(format!("looking at image {name}"));
        let is_odd = |error: &DockerError| error.status() == Some(500);
        match pauses.next().filter(|_| looked.as_ref().is_err_and(is_odd)) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return looked,
        }
    }
}

/// `name` as a part of a request's path: nothing in it may end that part, or lead to another path. `None` for what can be no
/// image's name.
fn escape(name: &str) -> Option<String> {
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b':' | b'@' | b'.' | b'_' | b'-' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    Some(escaped)
}

fn of(name: &str, found: ImageInspect) -> Result<BaseImage> {
    let Some(id) = found.id.filter(|id| !id.is_empty()) else {
        return Err(DockerError::Nonsense {
            doing: format!("looking at image {name}"),
            detail: "it has no id".into(),
        }
        .into());
    };
    // Podman leaves the algorithm out.
    let id = if id.contains(':') {
        id
    } else {
        format!("sha256:{id}")
    };
    let config = crate::snapshot::original(found.config.unwrap_or_default());
    let architecture = found.architecture.unwrap_or_default();
    let platform = (!architecture.is_empty()).then(|| Platform {
        os: found.os.unwrap_or_default(),
        architecture,
        variant: found.variant.filter(|variant| !variant.is_empty()),
    });
    let layers = found.root_fs.and_then(|files| files.layers);
    Ok(BaseImage {
        id,
        layers: layers.map_or(0, |layers| layers.len()),
        defaults: ImageDefaults::of(&config),
        config,
        tags: found.repo_tags.unwrap_or_default(),
        size: found.size.unwrap_or_default().unsigned_abs(),
        platform,
    })
}

/// What images are to run on here.
pub(crate) fn wanted_platform(machine: &Machine) -> Platform {
    machine.options.platform.clone().unwrap_or_else(|| {
        Platform {
            os: "linux".into(),
            architecture: machine.engine.info().processor.clone(),
            variant: None,
        }
        .normalized()
    })
}

/// Refuses an image for another platform: the daemon would start it, and its programs would not.
///
/// # Errors
///
/// [`Error::InvalidInput`].
pub(crate) fn check_platform(machine: &Machine, name: &str, base: &BaseImage) -> Result<(), Error> {
    let Some(platform) = &base.platform else {
        return Ok(());
    };
    let wanted = wanted_platform(machine);
    if wanted.runs(platform) {
        return Ok(());
    }
    Err(Error::InvalidInput {
        what: format!("image {name:?}"),
        reason: format!("it is for {platform}, and {wanted} is asked for"),
    })
}

/// Digest of the content that an image stands for: its id. An image that the daemon does not have is pulled, where the options
/// allow that.
pub(crate) async fn digest(machine: &Arc<Machine>, image: &str) -> Result<String> {
    let (owner, name) = (Arc::clone(machine), image.to_owned());
    let found = machine
        .engine
        .run(async move { crate::pull::ensure(&owner, &name).await });
    Ok(found.await?.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_part_of_a_path() {
        let plain = "a.b:5000/c/d_e-f:1@sha256:0";
        assert_eq!(escape(plain).as_deref(), Some(plain));
        assert_eq!(escape("a?b#c d%").as_deref(), Some("a%3Fb%23c%20d%25"));
        for path in ["", "/", "../info", "a/../../info", "a//b", "a/", "."] {
            assert_eq!(escape(path), None, "{path}");
        }
    }

    #[test]
    fn what_an_image_does_not_say_has_no_default() {
        let config = ImageConfig {
            user: Some(String::new()),
            working_dir: Some("/w".into()),
            env: Some(vec!["A=b=c".into(), "broken".into()]),
            ..ImageConfig::default()
        };
        let defaults = ImageDefaults::of(&config);
        assert_eq!(defaults.user, None);
        assert_eq!(defaults.working_dir.as_deref(), Some("/w"));
        assert_eq!(defaults.env, [("A".to_owned(), "b=c".to_owned())]);
    }
}
