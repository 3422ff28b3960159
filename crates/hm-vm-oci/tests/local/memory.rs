//! A source in memory.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use hm_vm_oci::{Descriptor, Digest, OciError, RawManifest, Source};

#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) root: RawManifest,
    pub(crate) blobs: HashMap<Digest, Vec<u8>>,
}

impl Memory {
    pub(crate) fn new(root: RawManifest) -> Self {
        let blobs = HashMap::new();
        Self { root, blobs }
    }

    pub(crate) fn with(mut self, bytes: Vec<u8>) -> Self {
        self.blobs.insert(Digest::of(&bytes), bytes);
        self
    }

    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, OciError> {
        (self.blobs.get(digest).cloned()).ok_or_else(|| OciError::NotFound {
            what: digest.to_string(),
            place: self.describe(),
        })
    }
}

impl Source for Memory {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn root(&self) -> Result<RawManifest, OciError> {
        Ok(self.root.clone())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, OciError> {
        Ok(RawManifest::of(
            &descriptor.media_type,
            self.blob(&descriptor.digest)?,
        ))
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OciError> {
        Ok(Box::new(Cursor::new(self.blob(&blob.digest)?)))
    }
}
