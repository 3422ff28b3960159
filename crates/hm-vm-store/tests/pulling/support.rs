//! Images in memory.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hm_vm_oci::{Descriptor, Digest, ImageConfig, Manifest, OciError, RawManifest, Source, media};
use hm_vm_store::{Base, ImageInfo, PullOptions, Store, StoreError};

/// An image in memory, which counts what is asked for, and can lie.
#[derive(Debug)]
pub(crate) struct Memory {
    root: RawManifest,
    blobs: BTreeMap<Digest, Vec<u8>>,
    pub(crate) layers: Vec<Descriptor>,
    /// Digests of what was opened, configurations not counted.
    pub(crate) opened: Mutex<Vec<Digest>>,
    /// Reads of layers left until they fail.
    pub(crate) reads_left: AtomicUsize,
}

/// A file of a layer: its path and content. A path that ends in `/` is a directory.
pub(crate) type Entry<'a> = (&'a str, &'a str);

pub(crate) fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        if let Some(target) = content.strip_prefix("link:") {
            header.set_entry_type(tar::EntryType::Link);
            header.set_mode(0o644);
            header.set_size(0);
            tar.append_link(&mut header, path, target).unwrap();
            continue;
        }
        let is_directory = path.ends_with('/');
        let mode = if is_directory { 0o755 } else { 0o644 };
        header.set_mode(mode);
        if is_directory {
            header.set_entry_type(tar::EntryType::Directory);
        }
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

impl Memory {
    /// An image of these layers, gzipped, whose configuration has this after `"config":`.
    pub(crate) fn new(layers: &[Vec<u8>], execution: &str) -> Self {
        let mut blobs = BTreeMap::new();
        let mut keep = |media_type: &str, bytes: Vec<u8>| {
            let descriptor = Descriptor::of(media_type, &bytes);
            blobs.insert(descriptor.digest, bytes);
            descriptor
        };
        let mut diff_ids = Vec::new();
        let mut descriptors = Vec::new();
        for layer in layers {
            diff_ids.push(format!("{:?}", Digest::of(layer).to_string()));
            let mut gzip = flate2::read::GzEncoder::new(&layer[..], flate2::Compression::fast());
            let mut bytes = Vec::new();
            gzip.read_to_end(&mut bytes).unwrap();
            descriptors.push(keep(media::LAYER_GZIP, bytes));
        }
        let config = format!(
            r#"{{"os":"linux","architecture":"{}","config":{execution},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            hm_vm_oci::Platform::here().architecture,
            diff_ids.join(",")
        );
        ImageConfig::parse(config.as_bytes()).unwrap();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            artifact_type: None,
            config: keep(media::CONFIG, config.into_bytes()),
            layers: descriptors.clone(),
            annotations: BTreeMap::new(),
        };
        Self {
            root: manifest.to_raw(),
            blobs,
            layers: descriptors,
            opened: Mutex::default(),
            reads_left: AtomicUsize::new(usize::MAX),
        }
    }

    /// What comes for a layer is something else.
    pub(crate) fn corrupt(&mut self, layer: usize) {
        let blob = self.blobs.get_mut(&self.layers[layer].digest).unwrap();
        let middle = blob.len() / 2;
        blob[middle] ^= 0x55;
    }

    pub(crate) fn opened(&self) -> usize {
        self.opened.lock().unwrap().len()
    }

    pub(crate) fn pull(&self, store: &Store, name: &str) -> Result<ImageInfo, StoreError> {
        store.pull_image(self, name, &PullOptions::default())
    }
}

impl Source for Memory {
    fn describe(&self) -> String {
        "an image in memory".into()
    }

    fn root(&self) -> Result<RawManifest, OciError> {
        Ok(self.root.clone())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, OciError> {
        Err(OciError::NotFound {
            what: descriptor.digest.to_string(),
            place: self.describe(),
        })
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OciError> {
        let bytes = self.blobs[&blob.digest].clone();
        if !blob.media_type.contains("config") {
            self.opened.lock().unwrap().push(blob.digest);
            let left = self.reads_left.load(Ordering::SeqCst);
            if left != usize::MAX {
                return Ok(Box::new(Cut(io::Cursor::new(bytes), left)));
            }
        }
        Ok(Box::new(io::Cursor::new(bytes)))
    }
}

/// Fails after some reads.
struct Cut(io::Cursor<Vec<u8>>, usize);

impl Read for Cut {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1 == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.1 -= 1;
        let length = buffer.len().min(16);
        self.0.read(&mut buffer[..length])
    }
}

/// All files of an image.
pub(crate) fn files(store: &Store, image: &str) -> BTreeMap<String, String> {
    let vm = store.new_vm(Base::Image(image)).unwrap();
    let snapshot = vm.commit(None).unwrap();
    vm.remove().unwrap();
    let found = crate::common::contents(&store.view(&snapshot).unwrap());
    store.remove_snapshot(&snapshot).unwrap();
    found
        .into_iter()
        .map(|(path, content)| (path.display().to_string(), content))
        .collect()
}

pub(crate) fn empty_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    (directory, store)
}

/// Pulls an image of many layers again and again, until killed.
pub(crate) fn kill_me(store: &Path) {
    let store = Store::open(store).unwrap();
    let layers: Vec<Vec<u8>> = (0..12)
        .map(|number| {
            let content = format!("{number}").repeat(50_000);
            tar(&[(&format!("f{number}"), content.as_str())])
        })
        .collect();
    for round in 0.. {
        let says = format!(r#"{{"Env":["ROUND={round}"]}}"#);
        let memory = Arc::new(Memory::new(&layers, &says));
        memory.pull(&store, "killed").unwrap();
        if round % 2 == 1 {
            store.remove_image("killed").unwrap();
        }
    }
}
