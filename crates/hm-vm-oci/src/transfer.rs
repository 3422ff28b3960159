//! Where the parts of images come from and go to.

use std::fmt;
use std::io::Read;

use hm_vm_core::Progress;

use crate::{Descriptor, OciError, RawManifest};

/// Where an image lies: a repository of a registry, a layout, an archive.
///
/// May be used from several threads at once. Every call ends within the time limits of the source, and soon
/// after the source's cancellation, with [`OciError::Cancelled`] then.
pub trait Source: Send + Sync + fmt::Debug {
    /// What it is called in messages.
    fn describe(&self) -> String;

    /// The manifest or index that the source was made for: verified where its reference has a digest, and
    /// no larger than [`MAX_MANIFEST_BYTES`](crate::MAX_MANIFEST_BYTES).
    ///
    /// # Errors
    ///
    /// [`OciError::NotFound`] when there is none, or another one of [`OciError`].
    fn root(&self) -> Result<RawManifest, OciError>;

    /// A manifest or index by its digest, verified.
    ///
    /// # Errors
    ///
    /// As [`root`](Self::root).
    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, OciError>;

    /// The bytes of a blob as they lie there, from the first one on. Cuts are mended behind the reader's back as far
    /// as that is possible. Not verified: read it through [`Verified`](crate::Verified). Reading does not use the
    /// calling thread's runtime, if any: it may happen in another process that shares our memory.
    ///
    /// # Errors
    ///
    /// As [`root`](Self::root); also while reading, inside the `std::io::Error` then.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OciError>;
}

/// Where an image is written to.
///
/// May be used from several threads at once. Parts first, then the manifest that names them.
pub trait Destination: Send + Sync + fmt::Debug {
    /// What it is called in messages.
    fn describe(&self) -> String;

    /// Whether the blob is there already.
    ///
    /// # Errors
    ///
    /// [`OciError`].
    fn has(&self, blob: &Descriptor) -> Result<bool, OciError>;

    /// Writes a blob. `open` gives its bytes from the first one on; it is called again when the transfer is
    /// tried again. `progress` counts bytes. Does nothing when the blob is there.
    ///
    /// # Errors
    ///
    /// [`OciError`]; nothing of it is visible then.
    fn put_blob(
        &self,
        blob: &Descriptor,
        open: &dyn Fn() -> std::io::Result<Box<dyn Read + Send>>,
        progress: &Progress,
    ) -> Result<(), OciError>;

    /// Writes a manifest or an index, whose parts are all there, under the name that the destination was made for.
    ///
    /// # Errors
    ///
    /// [`OciError`].
    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), OciError>;

    /// Ends the writing: an archive is complete only after it. A second call does nothing.
    ///
    /// # Errors
    ///
    /// [`OciError`].
    fn finish(&self) -> Result<(), OciError> {
        Ok(())
    }
}
