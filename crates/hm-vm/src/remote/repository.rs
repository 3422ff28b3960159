//! Where the entries of a shared cache lie.

use std::fmt;

use hm_vm_oci::{Destination, OciError, RawManifest, Repository, Source};

/// A place for manifests with tags, and for blobs: a repository of a registry.
///
/// May be used from several threads at once. Every call ends within the time limits of the place.
pub trait CacheRepository: Send + Sync + fmt::Debug {
    /// What it is called in messages.
    fn describe(&self) -> String;

    /// The manifest at a tag. `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`OciError`].
    fn manifest(&self, tag: &str) -> Result<Option<RawManifest>, OciError>;

    /// Writes a manifest, whose parts are all there, under a tag.
    ///
    /// # Errors
    ///
    /// [`OciError`].
    fn put_manifest(&self, tag: &str, manifest: &RawManifest) -> Result<(), OciError>;

    /// For reading blobs.
    fn source(&self) -> &dyn Source;

    /// For writing blobs.
    fn destination(&self) -> &dyn Destination;
}

impl CacheRepository for Repository {
    fn describe(&self) -> String {
        let reference = self.reference();
        format!("{}/{}", reference.registry(), reference.repository())
    }

    fn manifest(&self, tag: &str) -> Result<Option<RawManifest>, OciError> {
        self.manifest(tag)
    }

    fn put_manifest(&self, tag: &str, manifest: &RawManifest) -> Result<(), OciError> {
        self.put_manifest(tag, manifest)
    }

    fn source(&self) -> &dyn Source {
        self
    }

    fn destination(&self) -> &dyn Destination {
        self
    }
}
