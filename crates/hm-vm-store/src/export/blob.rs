//! Layers as OCI blobs.

use std::io::Read;
use std::path::Path;

use hm_vm_core::Cancellation;
use hm_vm_oci::{Compression, Descriptor, Digest, media};
use rusqlite::{Row, params};

use super::packing::{PackedFile, pack};
use super::tree::Form;
use crate::error::StoreError;
use crate::store::Core;

/// A layer's archive, packed.
#[derive(Debug)]
pub(crate) struct LayerBlob {
    /// Digest of the archive without compression.
    pub(crate) diff_id: Digest,
    /// The archive as it travels.
    pub(crate) descriptor: Descriptor,
    /// What the archive does not have, for people.
    pub(crate) notices: Vec<String>,
    file: PackedFile,
}

impl LayerBlob {
    /// Its bytes from the first one on, as often as wanted, also several times at once.
    pub(crate) fn open(&self) -> Box<dyn Read + Send> {
        self.file.open()
    }
}

/// What is known of a layer's archive without making it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownBlob {
    pub(crate) diff_id: Digest,
    pub(crate) descriptor: Descriptor,
}

impl Core {
    /// Packs a layer, and remembers diff id and descriptor. The same layer gives the same blob, here and on other
    /// machines, as long as the compressing library is the same; when that changes, the newest blob is remembered.
    ///
    /// The caller holds a stack that has the layer. Takes as long as reading and compressing it does.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] when the layer has a file that an OCI layer cannot hold, or for a compression that
    /// is none; otherwise a failure of the system.
    pub(crate) fn layer_blob(
        &self,
        layer: i64,
        compression: Compression,
    ) -> Result<LayerBlob, StoreError> {
        self.layer_blob_until(layer, compression, &Cancellation::new())
    }

    /// As [`layer_blob`](Self::layer_blob), until cancelled.
    ///
    /// # Errors
    ///
    /// As `layer_blob`, and [`StoreError::Cancelled`].
    pub(crate) fn layer_blob_until(
        &self,
        layer: i64,
        compression: Compression,
        cancel: &Cancellation,
    ) -> Result<LayerBlob, StoreError> {
        let blob = self.tree_blob(&self.layout.layer_tree(layer), compression, cancel)?;
        self.remember_blob(layer, &blob.diff_id, &blob.descriptor)?;
        Ok(blob)
    }

    /// Packs a tree in the form of a layer, of which nothing is remembered.
    ///
    /// # Errors
    ///
    /// As [`layer_blob_until`](Self::layer_blob_until).
    pub(super) fn tree_blob(
        &self,
        tree: &Path,
        compression: Compression,
        cancel: &Cancellation,
    ) -> Result<LayerBlob, StoreError> {
        let media_type = layer_media_type(compression)?;
        let packed = pack(self, tree, Form::Layer, compression, cancel)?;
        Ok(LayerBlob {
            diff_id: packed.diff_id,
            descriptor: Descriptor::new(media_type, packed.digest, packed.size),
            notices: packed.notices,
            file: packed.file,
        })
    }

    /// What is remembered of a layer's blob of this compression. Its bytes are had from
    /// [`layer_blob`](Self::layer_blob), or from where the layer came: then that may make another blob of it.
    ///
    /// # Errors
    ///
    /// A failure of the database.
    pub(crate) fn known_blob(
        &self,
        layer: i64,
        compression: Compression,
    ) -> Result<Option<(Digest, Descriptor)>, StoreError> {
        let known = self.known_blobs(layer)?.into_iter();
        let mut fitting = known.filter(|known| known.descriptor.compression() == compression);
        Ok(fitting
            .next()
            .map(|known| (known.diff_id, known.descriptor)))
    }

    /// All blobs that are known to hold what a layer holds.
    ///
    /// # Errors
    ///
    /// A failure of the database.
    pub(crate) fn known_blobs(&self, layer: i64) -> Result<Vec<KnownBlob>, StoreError> {
        self.db.read("looking for a layer's blobs", |connection| {
            let found: Vec<Option<KnownBlob>> = connection
                .prepare_cached(
                    "SELECT diff_id, media_type, digest, size
                     FROM layer_diffs JOIN layer_blobs USING (diff_id)
                     WHERE layer = ?1 ORDER BY diff_id, media_type",
                )?
                .query_map([layer], read_known)?
                .collect::<rusqlite::Result<_>>()?;
            Ok(found.into_iter().flatten().collect())
        })
    }

    fn remember_blob(
        &self,
        layer: i64,
        diff_id: &Digest,
        blob: &Descriptor,
    ) -> Result<(), StoreError> {
        self.db.write("noting a layer's blob", |tx| {
            let diff_id = diff_id.to_string();
            tx.prepare_cached(
                "INSERT OR IGNORE INTO layer_diffs (diff_id, layer)
                 SELECT ?1, id FROM layers WHERE id = ?2 AND state = 1",
            )?
            .execute(params![diff_id, layer])?;
            tx.prepare_cached(
                "INSERT OR REPLACE INTO layer_blobs (diff_id, media_type, digest, size)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                diff_id,
                blob.media_type,
                blob.digest.to_string(),
                blob.size
            ])?;
            Ok(())
        })
    }
}

/// `None` for a row that another program wrote.
fn read_known(row: &Row<'_>) -> rusqlite::Result<Option<KnownBlob>> {
    let (diff_id, digest): (String, String) = (row.get(0)?, row.get(2)?);
    let media_type: String = row.get(1)?;
    let size: u64 = row.get(3)?;
    let (Ok(diff_id), Ok(digest)) = (diff_id.parse(), digest.parse()) else {
        return Ok(None);
    };
    Ok(Some(KnownBlob {
        diff_id,
        descriptor: Descriptor::new(&media_type, digest, size),
    }))
}

/// What an OCI layer of this compression is called.
pub(super) fn layer_media_type(compression: Compression) -> Result<&'static str, StoreError> {
    match compression {
        Compression::None => Ok(media::LAYER),
        Compression::Gzip => Ok(media::LAYER_GZIP),
        Compression::Zstd => Ok(media::LAYER_ZSTD),
        Compression::Unknown => Err(StoreError::invalid("compression", "it is none")),
    }
}
