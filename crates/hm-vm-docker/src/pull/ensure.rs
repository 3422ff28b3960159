//! Images by their names, pulled where they are missing.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use hm_vm_core::{CancelCause, Cancellation, Error};
use hm_vm_oci::{Platform, Reference};

use super::names::{self, Name};
use super::progress::{PullOptions, PullProgress, PulledImage};
use super::request::Request;
use crate::backend::{DockerBackend, Machine};
use crate::error::{DockerError, Doing as _};
use crate::image::{self, BaseImage};
use crate::options::PullPolicy;

/// The image of this name: the one that the daemon has, or else the one that it pulls, where the options allow that. What the
/// daemon has counts under exactly this name, or with this id: not by the beginning of an id, nor by the name of another registry.
/// Runs on the engine's thread. Whether it fits the platform is checked for what was pulled.
///
/// # Errors
///
/// [`Error::ImageNotFound`]; [`Error::InvalidInput`] where it is not there for the platform; a failure of the
/// daemon or of the registry.
pub(crate) async fn ensure(machine: &Machine, name: &str) -> Result<BaseImage> {
    let parsed = Name::parse(name)?;
    let found = find(machine, &parsed).await?;
    let may_pull = machine.options.pull == PullPolicy::Missing;
    let not_found = || Error::ImageNotFound { image: name.into() };
    match (found, &parsed) {
        (Some(found), Name::Reference { full, .. })
            // Who asks for a platform by name gets it, whatever was pulled before under this name.
            if may_pull
                && machine.options.platform.is_some()
                && image::check_platform(machine, name, &found).is_err() =>
        {
            pull(machine, name, full, &PullOptions::default(), &|_| {}).await
        }
        (Some(found), _) => Ok(found),
        (None, Name::Id(_)) => Err(not_found()).context("an id cannot be pulled"),
        (None, Name::Reference { full, .. }) if may_pull => {
            pull(machine, name, full, &PullOptions::default(), &|_| {}).await
        }
        (None, _) => Err(not_found()).context("the daemon does not have it, and may not pull"),
    }
}

async fn find(machine: &Machine, name: &Name) -> Result<Option<BaseImage>> {
    for name in name.in_daemon(machine.engine.info().kind) {
        if let Some(found) = image::inspect(&machine.engine, &name).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Pulls, and looks at what is there then.
async fn pull(
    machine: &Machine,
    name: &str,
    reference: &Reference,
    options: &PullOptions,
    watch: &(dyn Fn(PullProgress) + Send + Sync),
) -> Result<BaseImage> {
    let wanted = options
        .platform
        .clone()
        .unwrap_or_else(|| image::wanted_platform(machine));
    // Of a 32-bit ARM, a daemon does not tell the version; it knows it.
    let is_known = options.platform.is_some()
        || machine.options.platform.is_some()
        || wanted.architecture != "arm";
    let request = Request {
        name,
        reference,
        platform: is_known.then_some(&wanted),
        cancel: &options.cancel,
        watch,
    };
    request.pull(machine).await?;
    let exact = Name::Reference {
        full: reference.clone(),
        // What was pulled has the name of its registry.
        written: reference.to_string(),
    };
    let found = find(machine, &exact).await?;
    let found = found.ok_or_else(|| DockerError::Nonsense {
        doing: format!("pulling {reference}"),
        detail: "it was pulled, and is not there".into(),
    })?;
    check(name, &wanted, &found)?;
    Ok(found)
}

fn check(name: &str, wanted: &Platform, found: &BaseImage) -> Result<(), Error> {
    match &found.platform {
        Some(platform) if !wanted.runs(platform) => Err(Error::InvalidInput {
            what: format!("image {name:?}"),
            reason: format!("it is for {platform}, and {wanted} is asked for"),
        }),
        _ => Ok(()),
    }
}

impl DockerBackend {
    /// Lets the daemon pull an image, also where it has one of that name, and says how far it is. `watch` is called on the
    /// backend's thread and must not block. Names are those of Docker: `alpine` is `docker.io/library/alpine:latest`.
    /// Two pulls of one image at once are fine. Dropping the future ends the pull; what is there of it stays with the daemon.
    ///
    /// # Errors
    ///
    /// [`Error::ImageNotFound`]; [`Error::InvalidInput`] where it is not there for the platform;
    /// [`Error::Cancelled`]; [`Error::NoSpace`]; a failure of the daemon, or of the registry, which may want a login.
    pub async fn pull(
        &self,
        name: &str,
        options: &PullOptions,
        watch: Arc<dyn Fn(PullProgress) + Send + Sync>,
    ) -> Result<PulledImage> {
        let (machine, name) = (Arc::clone(&self.machine), name.to_owned());
        let mut options = options.clone();
        let outer = std::mem::take(&mut options.cancel);
        let _ended = EndOnDrop(options.cancel.clone());
        let work = async move {
            let Name::Reference { full, .. } = Name::parse(&name)? else {
                let error = Error::ImageNotFound { image: name };
                return Err(error).context("an id cannot be pulled");
            };
            let base = tokio::select! {
                biased;
                cause = outer.cancelled() => {
                    return Err(Error::from(cause)).context(format!("pulling {full}"));
                }
                base = pull(&machine, &name, &full, &options, &*watch) => base?,
            };
            Ok(PulledImage {
                digest: digest(&machine, &full, &base).await?,
                id: base.id,
                bytes: base.size,
            })
        };
        self.machine.engine.run(work).await
    }
}

/// Work on the engine's thread goes on when nobody waits for it.
struct EndOnDrop(Cancellation);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let cause = "nobody waits for it any more".to_owned();
        self.0.cancel(CancelCause::Other(cause));
    }
}

/// Under which digest the registry knows an image.
async fn digest(
    machine: &Machine,
    reference: &Reference,
    base: &BaseImage,
) -> Result<Option<String>> {
    let facts = machine.engine.docker().inspect_image(&base.id).await;
    let facts = facts.doing(format!("looking at image {reference}"))?;
    let place = names::repository(reference);
    let mut all = facts
        .repo_digests
        .unwrap_or_default()
        .into_iter()
        .filter(|digest| {
            digest
                .parse::<Reference>()
                .is_ok_and(|known| names::repository(&known) == place)
        });
    Ok(match reference.digest() {
        Some(digest) => Some(format!("{place}@{digest}")),
        None => all.next(),
    })
}
