//! Pulling one image.

use hm_vm_oci::{OciError, Platform, Resolved, Source, resolve};

use super::enter::Entry;
use super::layers::{Layers, Pull};
use super::parts::distinct;
use super::{ImageLayer, PullOptions, short};
use crate::error::StoreError;
use crate::store::{ImageDefaults, ImageInfo, Store, image_rows};

/// What of an image's configuration is kept.
pub(super) struct Known {
    pub(super) digest: String,
    /// As it was there.
    pub(super) config: String,
    pub(super) platform: Platform,
}

impl Known {
    fn of(image: &Resolved, options: &PullOptions) -> Result<Self, OciError> {
        let bad = |reason: String| OciError::invalid("the configuration of the image", reason);
        ImageDefaults::of(&image.config).map_err(bad)?;
        let config = String::from_utf8(image.config_bytes.clone())
            .map_err(|_| bad("it is not UTF-8".to_owned()))?;
        let platform = match &image.config.platform {
            named if named.architecture.is_empty() => &options.platform,
            named => named,
        };
        Ok(Self {
            digest: image.config_digest.to_string(),
            config,
            platform: platform.normalized(),
        })
    }
}

impl Store {
    /// Makes the image that a source has one of this store, under a name. Layers that are here already are not fetched
    /// again, whichever image they came with. An image of that name is replaced; what was made from it stays
    /// whole. Where nothing has changed, only the time of the question is noted.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] for a name that cannot be used, [`StoreError::Oci`] for a source that fails or
    /// lies, or has no image for the platform, [`StoreError::Import`] for a layer that is damaged, hostile
    /// or too large, [`StoreError::Cancelled`], or a failure of the system; nothing is changed then.
    pub fn pull_image(
        &self,
        source: &dyn Source,
        name: &str,
        options: &PullOptions,
    ) -> Result<ImageInfo, StoreError> {
        image_rows::check_name(name)?;
        options.cancel.check().map_err(StoreError::Cancelled)?;
        let image = resolve(source, &options.platform)?;
        let entry = Entry {
            name,
            known: &Known::of(&image, options)?,
            image: &image,
            reference: options.reference.as_deref(),
        };
        if !self.still_is(&entry)? && !self.enter_known(&entry)? {
            self.pull_layers(source, &entry, options)?;
        }
        self.image(name)?.ok_or_else(|| image_rows::not_found(name))
    }

    fn pull_layers(
        &self,
        source: &dyn Source,
        entry: &Entry<'_>,
        options: &PullOptions,
    ) -> Result<(), StoreError> {
        let pull = Pull {
            store: self,
            source,
            options,
        };
        let all = ImageLayer::all(entry.image);
        let places = distinct(&all);
        let wanted: Vec<&ImageLayer> = places.into_iter().map(|place| &all[place]).collect();
        let Layers {
            layers,
            size,
            mut notices,
            held,
        } = pull.bring(&wanted)?;
        notices.sort();
        notices.dedup();
        let layers = short::finish(self.core(), layers, &options.cancel)?;
        options.cancel.check().map_err(StoreError::Cancelled)?;
        self.enter_new(entry, layers, size, &notices, held)
    }
}
