//! The layers of an image, as others have them.

use hm_vm_oci::{Compression, Descriptor, Digest, Resolved, media};
use serde::{Deserialize, Serialize};

/// A layer of an image as others have it. `image_versions.layers` is a list of these, bottom first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageLayer {
    /// Digest of its archive, without compression.
    pub(crate) diff_id: Digest,
    /// The archive as it lay where it was pulled from.
    pub(crate) blob: Descriptor,
}

impl ImageLayer {
    /// Those of an image, bottom first.
    pub(super) fn all(image: &Resolved) -> Vec<Self> {
        let diff_ids = image.config.rootfs.diff_ids.iter();
        let layers = diff_ids.zip(&image.manifest.layers);
        layers
            .map(|(diff_id, blob)| Self {
                diff_id: *diff_id,
                blob: blob.clone(),
            })
            .collect()
    }

    /// Its archive, under the media type by which other layers of that compression are known.
    pub(super) fn known_blob(&self) -> Option<Descriptor> {
        let media_type = match self.blob.compression() {
            Compression::None => media::LAYER,
            Compression::Gzip => media::LAYER_GZIP,
            Compression::Zstd => media::LAYER_ZSTD,
            Compression::Unknown => return None,
        };
        Some(Descriptor::new(
            media_type,
            self.blob.digest,
            self.blob.size,
        ))
    }
}

/// The places of the layers that count, bottom first. One that comes twice counts where it comes last: on top it
/// shows all that it showed further down, and overlayfs refuses a directory twice.
pub(super) fn distinct(layers: &[ImageLayer]) -> Vec<usize> {
    let is_last = |place: &usize| {
        let above = &layers[place + 1..];
        above
            .iter()
            .all(|other| other.diff_id != layers[*place].diff_id)
    };
    (0..layers.len()).filter(is_last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_comes_twice_counts_once() {
        let layers: Vec<ImageLayer> = [b"a", b"b", b"a", b"c", b"b"]
            .into_iter()
            .map(|bytes| ImageLayer {
                diff_id: Digest::of(bytes),
                blob: Descriptor::of(media::LAYER, bytes),
            })
            .collect();
        assert_eq!(distinct(&layers), [2, 3, 4]);
        assert_eq!(distinct(&[]), Vec::<usize>::new());
    }
}
