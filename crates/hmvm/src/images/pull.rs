//! Pulling several images at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context as _;
use hm_vm::Cancellation;
use hm_vm::oci::{Platform, Reference, RegistryClient, Source};
use hm_vm::store::{ImageInfo, PullOptions, Store, TransferWatch};

use crate::failure::Problem;
use crate::output::sanitize::sanitize;
use crate::output::transfers::Transfers;

/// Images that are pulled at once; each brings several layers at once.
const AT_ONCE: usize = 4;

/// An image to pull.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// As the user wrote it.
    pub(crate) name: String,
    /// What that means.
    pub(crate) reference: Reference,
    /// `None` for this machine's.
    pub(crate) platform: Option<Platform>,
}

impl Wanted {
    /// What a name means.
    ///
    /// # Errors
    ///
    /// It is no reference.
    pub(crate) fn parse(name: &str) -> Result<Self, Problem> {
        let reference = name.parse::<Reference>().map_err(|error| {
            Problem::new(error.to_string()).hint(
                "write it as for docker pull: debian:bookworm, registry.example/team/image:tag, image@sha256:…",
            )
        })?;
        Ok(Self {
            name: name.to_owned(),
            reference,
            platform: None,
        })
    }
}

/// What pulls.
#[derive(Debug)]
pub(crate) struct Puller<'a> {
    pub(crate) store: &'a Store,
    pub(crate) client: &'a RegistryClient,
    pub(crate) cancel: &'a Cancellation,
    pub(crate) transfers: &'a Transfers,
}

impl Puller<'_> {
    /// Pulls all, several at once, and returns what came of each, in their order. Blocks.
    pub(crate) fn all(&self, wanted: &[Wanted]) -> Vec<anyhow::Result<ImageInfo>> {
        let left = Mutex::new(wanted.iter().enumerate());
        let done = Mutex::new(Vec::with_capacity(wanted.len()));
        let lock = |error: PoisonError<_>| error.into_inner();
        thread::scope(|scope| {
            for _ in 0..wanted.len().min(AT_ONCE) {
                scope.spawn(|| {
                    loop {
                        let next = left.lock().unwrap_or_else(lock).next();
                        let Some((place, one)) = next else { break };
                        let pulled = self.one(one);
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.push((place, pulled));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(place, _)| *place);
        done.into_iter().map(|(_, pulled)| pulled).collect()
    }

    fn one(&self, wanted: &Wanted) -> anyhow::Result<ImageInfo> {
        let source = self.client.source(&wanted.reference);
        let name = wanted.reference.to_string();
        let watch = self.transfers.watch(&wanted.name);
        let reference = Some(name.clone());
        let options = options(reference, wanted.platform.clone(), watch, self.cancel);
        self.store
            .pull_image(source.as_ref(), &name, &options)
            .with_context(|| format!("cannot pull image {}", sanitize(&wanted.name)))
    }
}

/// Brings an image of a layout, an archive or a daemon into the store under a name. Blocks.
pub(crate) fn bring(
    store: &Store,
    source: &dyn Source,
    name: &str,
    platform: Option<Platform>,
    watch: Arc<dyn TransferWatch>,
    cancel: &Cancellation,
) -> anyhow::Result<ImageInfo> {
    Ok(store.pull_image(source, name, &options(None, platform, watch, cancel))?)
}

fn options(
    reference: Option<String>,
    platform: Option<Platform>,
    watch: Arc<dyn TransferWatch>,
    cancel: &Cancellation,
) -> PullOptions {
    PullOptions {
        platform: platform.unwrap_or_else(Platform::here),
        watch,
        cancel: cancel.clone(),
        reference,
        ..PullOptions::default()
    }
}
