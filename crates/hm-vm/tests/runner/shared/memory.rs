//! A repository in memory, which may misbehave.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use hm_vm::Progress;
use hm_vm::oci::{Descriptor, Destination, Digest, Manifest, OciError, RawManifest, Source};
use hm_vm::remote::CacheRepository;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// Nobody answers.
    Down,
    /// Whoever reads a manifest waits until this is over.
    HangingManifests,
    /// Whoever reads a blob, but for records, waits until this is over.
    HangingBlobs,
    /// Every blob but the records goes on for ever.
    Endless,
    /// Nothing can be written.
    Full,
    /// Writing is not allowed.
    Forbidden,
}

#[derive(Debug, Default)]
pub(in crate::runner) struct Memory {
    pub(super) manifests: Mutex<BTreeMap<String, RawManifest>>,
    pub(super) blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
    fault: Mutex<Fault>,
    over: Condvar,
    /// What it was asked for.
    pub(super) asked: AtomicUsize,
    pub(super) read: AtomicUsize,
    pub(super) written: AtomicUsize,
}

impl Memory {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
        self.over.notify_all();
    }

    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }

    fn wait_while(&self, fault: Fault) {
        let held = self.fault.lock().unwrap();
        let waited = self.over.wait_while(held, |now| *now == fault);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn check(&self) -> Result<(), OciError> {
        match self.fault() {
            Fault::Down => Err(OciError::Unreachable {
                doing: "asking".into(),
                place: "memory".into(),
                reason: "nobody answers".into(),
            }),
            _ => Ok(()),
        }
    }

    fn check_write(&self) -> Result<(), OciError> {
        self.check()?;
        match self.fault() {
            Fault::Full => Err(OciError::Answer {
                doing: "writing".into(),
                place: "memory".into(),
                reason: "507 Insufficient Storage".into(),
            }),
            Fault::Forbidden => Err(OciError::Denied {
                doing: "writing".into(),
                place: "memory".into(),
                reason: "403 Forbidden".into(),
            }),
            _ => Ok(()),
        }
    }

    /// The only entry: its tag and manifest.
    pub(super) fn entry(&self) -> (String, Manifest) {
        let manifests = self.manifests.lock().unwrap();
        assert_eq!(manifests.len(), 1);
        let (tag, raw) = manifests.first_key_value().unwrap();
        (tag.clone(), serde_json::from_slice(&raw.bytes).unwrap())
    }

    pub(super) fn put_entry(&self, tag: &str, manifest: &Manifest) {
        let bytes = serde_json::to_vec(manifest).unwrap();
        self.put_raw(tag, bytes);
    }

    pub(super) fn put_raw(&self, tag: &str, bytes: Vec<u8>) {
        let raw = RawManifest {
            media_type: hm_vm::oci::media::MANIFEST.into(),
            digest: Digest::of(&bytes),
            bytes,
        };
        self.manifests.lock().unwrap().insert(tag.into(), raw);
    }

    pub(super) fn blob(&self, blob: &Descriptor) -> Vec<u8> {
        self.blobs.lock().unwrap()[&blob.digest].clone()
    }

    /// Puts a blob in, and returns what it is.
    pub(super) fn put(&self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let blob = Descriptor::of(media_type, &bytes);
        self.blobs.lock().unwrap().insert(blob.digest, bytes);
        blob
    }

    /// Every blob that a manifest names is there.
    pub(super) fn assert_whole(&self) {
        let blobs = self.blobs.lock().unwrap();
        for raw in self.manifests.lock().unwrap().values() {
            let manifest: Manifest = serde_json::from_slice(&raw.bytes).unwrap();
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                assert_eq!(blobs[&blob.digest].len() as u64, blob.size);
            }
        }
    }
}

impl CacheRepository for Memory {
    fn describe(&self) -> String {
        "memory".into()
    }

    fn manifest(&self, tag: &str) -> Result<Option<RawManifest>, OciError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.wait_while(Fault::HangingManifests);
        self.check()?;
        Ok(self.manifests.lock().unwrap().get(tag).cloned())
    }

    fn put_manifest(&self, tag: &str, manifest: &RawManifest) -> Result<(), OciError> {
        self.check_write()?;
        self.written.fetch_add(1, Ordering::Relaxed);
        let mut manifests = self.manifests.lock().unwrap();
        manifests.insert(tag.into(), manifest.clone());
        drop(manifests);
        self.assert_whole();
        Ok(())
    }

    fn source(&self) -> &dyn Source {
        self
    }

    fn destination(&self) -> &dyn Destination {
        self
    }
}

impl Source for Memory {
    fn describe(&self) -> String {
        "memory".into()
    }

    fn root(&self) -> Result<RawManifest, OciError> {
        Err(OciError::invalid("root", "none"))
    }

    fn manifest(&self, _: &Descriptor) -> Result<RawManifest, OciError> {
        self.root()
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OciError> {
        self.check()?;
        let is_record = blob.media_type.contains("record");
        if !is_record {
            self.read.fetch_add(1, Ordering::Relaxed);
            self.wait_while(Fault::HangingBlobs);
        }
        let blobs = self.blobs.lock().unwrap();
        let bytes = blobs.get(&blob.digest).ok_or_else(|| OciError::NotFound {
            what: blob.digest.to_string(),
            place: "memory".into(),
        })?;
        let bytes = Cursor::new(bytes.clone());
        if self.fault() == Fault::Endless && !is_record {
            return Ok(Box::new(bytes.chain(io::repeat(0))));
        }
        Ok(Box::new(bytes))
    }
}

impl Destination for Memory {
    fn describe(&self) -> String {
        "memory".into()
    }

    fn has(&self, blob: &Descriptor) -> Result<bool, OciError> {
        self.check()?;
        Ok(self.blobs.lock().unwrap().contains_key(&blob.digest))
    }

    fn put_blob(
        &self,
        blob: &Descriptor,
        open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
        _: &Progress,
    ) -> Result<(), OciError> {
        self.check_write()?;
        let mut bytes = Vec::new();
        let read = open().and_then(|mut input| input.read_to_end(&mut bytes));
        read.unwrap();
        assert_eq!(Descriptor::of(&blob.media_type, &bytes), *blob);
        self.written.fetch_add(1, Ordering::Relaxed);
        self.blobs.lock().unwrap().insert(blob.digest, bytes);
        Ok(())
    }

    fn put_manifest(&self, _: &RawManifest) -> Result<(), OciError> {
        Err(OciError::invalid("manifest", "it has no tag"))
    }
}
