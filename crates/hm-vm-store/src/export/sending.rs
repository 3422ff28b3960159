//! Layers on their way to where an image is written.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hm_vm_core::ProgressUnit;
use hm_vm_oci::{Compression, Descriptor, Destination, Digest, media};

use super::blob::LayerBlob;
use super::options::{ExportOptions, ImageFormat};
use crate::error::{Context, StoreError};
use crate::pull::ImageLayer;
use crate::store::Store;
use crate::tree::merge::merge;

/// Layers that are packed and sent at once, at most.
const AT_ONCE: usize = 3;

/// One layer of the image to be.
#[derive(Debug)]
pub(super) enum Piece {
    /// A layer of the store.
    Layer(i64),
    /// Several, bottom first, to be sent as one.
    Several(Vec<i64>),
}

/// The layers of a stack, bottom first, as at most so many pieces, but one at least: the topmost come together.
pub(super) fn pieces(layers: &[i64], most: usize) -> Vec<Piece> {
    if layers.len() <= most.max(1) {
        return layers.iter().copied().map(Piece::Layer).collect();
    }
    let (alone, together) = layers.split_at(most.max(1) - 1);
    let mut pieces: Vec<Piece> = alone.iter().copied().map(Piece::Layer).collect();
    pieces.push(Piece::Several(together.to_vec()));
    pieces
}

/// A layer that is at its destination.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) diff_id: Digest,
    pub(super) blob: Descriptor,
    /// Whether it travelled: else it was there.
    pub(super) travelled: bool,
    pub(super) notices: Vec<String>,
}

/// Sends layers that somebody holds.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) store: &'a Store,
    pub(super) destination: &'a dyn Destination,
    pub(super) options: &'a ExportOptions,
}

impl Sender<'_> {
    /// The layers of an image as they were where it was pulled from, if all of them are at the destination.
    pub(super) fn originals(&self, layers: &str) -> Result<Option<Vec<Sent>>, StoreError> {
        let Ok(layers) = serde_json::from_str::<Vec<ImageLayer>>(layers) else {
            return Ok(None);
        };
        let mut there = Vec::with_capacity(layers.len());
        for (place, layer) in layers.iter().enumerate() {
            self.check()?;
            let blob = self.in_words(&layer.blob);
            if !self.may_have(&layer.blob) || !self.destination.has(&blob)? {
                return Ok(None);
            }
            self.begin(&format!("image layer {}", place + 1), Some(&blob), true);
            there.push(Sent {
                diff_id: layer.diff_id,
                blob,
                travelled: false,
                notices: Vec::new(),
            });
        }
        Ok((!there.is_empty()).then_some(there))
    }

    /// Sends all of them, several at once. Ends at the first failure.
    pub(super) fn send_all(&self, pieces: &[Piece]) -> Result<Vec<Sent>, StoreError> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let done: Mutex<Vec<(usize, Result<Sent, StoreError>)>> = Mutex::default();
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(piece) = pieces.get(place) else {
                    break;
                };
                let label = format!("layer {}/{}", place + 1, pieces.len());
                let sent = self.send(piece, &label);
                if sent.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done.push((place, sent));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..AT_ONCE.min(pieces.len()) {
                scope.spawn(work);
            }
            work();
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_unstable_by_key(|(place, _)| *place);
        done.into_iter().map(|(_, sent)| sent).collect()
    }

    fn send(&self, piece: &Piece, label: &str) -> Result<Sent, StoreError> {
        self.check()?;
        let known = match piece {
            Piece::Layer(layer) => self.acceptable(*layer)?,
            Piece::Several(_) => Vec::new(),
        };
        for (diff_id, blob) in &known {
            if self.destination.has(blob)? {
                self.begin(label, Some(blob), true);
                return Ok(Sent {
                    diff_id: *diff_id,
                    blob: blob.clone(),
                    travelled: false,
                    notices: Vec::new(),
                });
            }
        }
        // Nobody may know yet how long it will be; packing takes its time.
        let progress = self.begin(label, known.first().map(|(_, blob)| blob), false);
        let made = match piece {
            Piece::Layer(layer) => self.pack(*layer)?,
            Piece::Several(layers) => self.pack_together(layers)?,
        };
        let blob = self.in_words(&made.descriptor);
        let is_new = !known.iter().any(|(_, known)| known.digest == blob.digest);
        let travelled = !is_new || !self.destination.has(&blob)?;
        progress.begin(ProgressUnit::Bytes, Some(blob.size));
        if travelled {
            self.check()?;
            self.destination
                .put_blob(&blob, &|| Ok(made.open()), &progress)?;
        }
        progress.complete();
        Ok(Sent {
            diff_id: made.diff_id,
            blob,
            travelled,
            notices: made.notices,
        })
    }

    fn pack(&self, layer: i64) -> Result<LayerBlob, StoreError> {
        let core = self.store.core();
        core.layer_blob_until(layer, self.options.compression, &self.options.cancel)
    }

    /// Merges layers as overlayfs would show them, for the moment.
    fn pack_together(&self, layers: &[i64]) -> Result<LayerBlob, StoreError> {
        let core = self.store.core();
        let made = core.new_tree()?;
        let paths = layers.iter().rev();
        let paths: Vec<_> = paths.map(|layer| core.layout.layer_tree(*layer)).collect();
        let paths: Vec<&Path> = paths.iter().map(AsRef::as_ref).collect();
        let never = AtomicBool::new(false);
        core.files
            .run(|| merge(&paths, made.path(), &never))?
            .context("merging layers in", made.path())?;
        core.tree_blob(made.path(), self.options.compression, &self.options.cancel)
    }

    /// Blobs that are known to hold the layer and may be in the image, the wanted compression first.
    fn acceptable(&self, layer: i64) -> Result<Vec<(Digest, Descriptor)>, StoreError> {
        let wanted = self.options.compression;
        let mut known = self.store.core().known_blobs(layer)?;
        known.retain(|known| self.may_have(&known.descriptor));
        known.sort_by_key(|known| known.descriptor.compression() != wanted);
        Ok(known
            .into_iter()
            .map(|known| (known.diff_id, self.in_words(&known.descriptor)))
            .collect())
    }

    /// Whether the image may have this blob. Whoever reads zstd reads the others as well.
    fn may_have(&self, blob: &Descriptor) -> bool {
        let has = blob.compression();
        !blob.is_foreign()
            && (has == self.options.compression
                || matches!(has, Compression::None | Compression::Gzip))
    }

    /// The same blob as this image's manifest names it.
    fn in_words(&self, blob: &Descriptor) -> Descriptor {
        let media_type = match (self.options.format, blob.compression()) {
            (ImageFormat::Oci, Compression::Gzip) => media::LAYER_GZIP,
            (ImageFormat::Oci, Compression::Zstd) => media::LAYER_ZSTD,
            (ImageFormat::Oci, _) => media::LAYER,
            (ImageFormat::Docker, Compression::Gzip) => media::DOCKER_LAYER,
            (ImageFormat::Docker, Compression::Zstd) => media::DOCKER_LAYER_ZSTD,
            (ImageFormat::Docker, _) => media::DOCKER_LAYER_TAR,
        };
        Descriptor::new(media_type, blob.digest, blob.size)
    }

    fn begin(&self, label: &str, blob: Option<&Descriptor>, present: bool) -> hm_vm_core::Progress {
        self.options.watch.part(&crate::transfer::TransferPart {
            label: label.to_owned(),
            digest: blob.map(|blob| blob.digest),
            bytes: blob.map(|blob| blob.size),
            present,
        })
    }

    fn check(&self) -> Result<(), StoreError> {
        self.options.cancel.check().map_err(StoreError::Cancelled)
    }
}
