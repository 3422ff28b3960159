//! What the content of images and host files is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{Context, Result};
use futures_util::future::{join, join_all};
use hm_vm_core::InjectSource;

use super::inputs::PlanInputs;

/// What is to be digested, each thing once, with the name of a step that it is for.
#[derive(Default)]
pub(super) struct Wanted<'a> {
    images: HashMap<&'a str, &'a str>,
    image_order: Vec<&'a str>,
    sources: HashMap<&'a InjectSource, &'a str>,
    source_order: Vec<&'a InjectSource>,
}

/// What came of it. `None` where the backend cannot tell.
#[derive(Debug, Default)]
pub(super) struct Digests<'a> {
    images: HashMap<&'a str, Option<String>>,
    sources: HashMap<&'a InjectSource, Option<String>>,
}

impl<'a> Wanted<'a> {
    /// Wants an image's digest.
    pub(super) fn image(&mut self, image: &'a str, step: &'a str) {
        if let Entry::Vacant(entry) = self.images.entry(image) {
            entry.insert(step);
            self.image_order.push(image);
        }
    }

    /// Wants the digest of host files.
    pub(super) fn source(&mut self, source: &'a InjectSource, step: &'a str) {
        if let Entry::Vacant(entry) = self.sources.entry(source) {
            entry.insert(step);
            self.source_order.push(source);
        }
    }

    /// Asks for all at the same time.
    pub(super) async fn ask(self, inputs: &dyn PlanInputs) -> Result<Digests<'a>> {
        let wanted = &self;
        let images = self.image_order.iter().map(|image| async move {
            let digest = inputs.image_digest(image).await;
            digest.with_context(|| format!("image {image:?} of step {:?}", wanted.images[image]))
        });
        let sources = self.source_order.iter().map(|source| async move {
            let digest = inputs.inject_digest(source).await;
            digest.with_context(|| {
                let directory = source.directory.display();
                format!("files of {directory} for step {:?}", wanted.sources[source])
            })
        });
        // All are awaited before the first failure is told: which one that is does not depend on time.
        let (images, sources) = join(join_all(images), join_all(sources)).await;
        Ok(Digests {
            images: zip(&self.image_order, images)?,
            sources: zip(&self.source_order, sources)?,
        })
    }
}

fn zip<T: Copy + Eq + std::hash::Hash>(
    names: &[T],
    digests: Vec<Result<Option<String>>>,
) -> Result<HashMap<T, Option<String>>> {
    let pairs = names.iter().copied().zip(digests);
    pairs.map(|(name, digest)| Ok((name, digest?))).collect()
}

impl Digests<'_> {
    /// Digest of an image's content, if it is known.
    pub(super) fn image(&self, image: &str) -> Option<&String> {
        self.images.get(image)?.as_ref()
    }

    /// Digest of host files, if it is known.
    pub(super) fn source(&self, source: &InjectSource) -> Option<&String> {
        self.sources.get(source)?.as_ref()
    }
}
