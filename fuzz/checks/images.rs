//! What must hold of images whatever bytes they are made of. Each function takes the bytes of one file of the corpus
//! of its name, and panics when something does not hold. Used by the fuzz targets, and by the tests of hm-vm-oci.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use hm_vm_oci::{
    Descriptor, Digest, ImageConfig, LocalOptions, Members, OciError, Parsed, Platform,
    RawManifest, Reference, Source, Verified, media, open_local_with, resolve,
};

/// Documents, with NUL between them: the first is the root of a source, the others are what it leads to.
pub(crate) fn manifest(bytes: &[u8]) {
    let documents: Vec<&[u8]> = bytes.split(|&byte| byte == 0).collect();
    for document in &documents {
        for media_type in ["", media::MANIFEST, media::INDEX, media::DOCKER_LIST] {
            check_manifest(&RawManifest::of(media_type, document.to_vec()));
        }
        if let Ok(config) = ImageConfig::parse(document) {
            let written = config.to_bytes();
            assert_eq!(ImageConfig::parse(&written).ok().as_ref(), Some(&config));
        }
    }
    let source = Documents::new(&documents);
    for platform in platforms() {
        if let Ok(image) = resolve(&source, &platform) {
            let named = image.config.rootfs.diff_ids.len();
            assert_eq!(named, image.manifest.layers.len());
            assert_eq!(Digest::of(&image.config_bytes), image.config_digest);
        }
    }
}

/// A name.
pub(crate) fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(reference) = text.parse::<Reference>() {
        let full = reference.to_string();
        assert_eq!(full.parse::<Reference>().ok(), Some(reference), "{full}");
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.normalized(), platform);
        assert_eq!(
            platform.to_string().parse::<Platform>().ok().as_ref(),
            Some(&platform)
        );
        assert!(platform.runs(&platform));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
}

/// A file that is said to be an archive of images.
pub(crate) fn archive_index(bytes: &[u8]) {
    let Ok(directory) = tempfile::tempdir() else {
        return;
    };
    let path = directory.path().join("archive");
    if File::create(&path)
        .and_then(|mut file| file.write_all(bytes))
        .is_err()
    {
        return;
    }
    if let Ok(members) = File::open(&path).map(|file| Members::scan(file, Path::new("archive"))) {
        check_members(members, bytes.len() as u64);
    }
    let options = LocalOptions {
        scratch: Some(directory.path().to_owned()),
        unpacked_limit: 1 << 20,
        ..LocalOptions::default()
    };
    if let Ok(source) = open_local_with(&path, &options) {
        for platform in platforms() {
            let Ok(image) = resolve(&*source, &platform) else {
                continue;
            };
            for layer in &image.manifest.layers {
                let _ = source
                    .open(layer)
                    .map(|input| Verified::new(input, layer).drain());
            }
        }
    }
    let left = directory.path().read_dir().map_or(0, Iterator::count);
    assert_eq!(left, 1, "something is left beside the archive");
}

fn check_members(members: Result<Members, OciError>, length: u64) {
    let Ok(members) = members else {
        return;
    };
    for name in [
        "manifest.json",
        "index.json",
        "oci-layout",
        "x/layer.tar",
        "../x",
        "/etc/passwd",
    ] {
        let is_there = members.contains(name);
        let Ok((mut reader, size)) = members.member(name) else {
            assert!(!is_there);
            continue;
        };
        assert!(size <= length, "{name} is larger than the archive");
        let read = std::io::copy(&mut reader, &mut std::io::sink());
        assert_eq!(read.ok(), Some(size));
    }
    assert!(!members.contains("../x") && !members.contains("/etc/passwd"));
}

fn check_manifest(raw: &RawManifest) {
    match raw.parse() {
        Err(_) => {}
        Ok(Parsed::Manifest(manifest)) => {
            assert!(manifest.total_size().is_some());
            assert_eq!(
                manifest.to_raw().parse().ok(),
                Some(Parsed::Manifest(manifest))
            );
        }
        Ok(Parsed::Index(index)) => {
            for platform in platforms() {
                if let Ok(chosen) = index.choose(&platform) {
                    let fits = |has: &Platform| platform.runs(has);
                    assert!(chosen.platform.as_ref().is_none_or(fits));
                }
            }
            assert_eq!(index.to_raw().parse().ok(), Some(Parsed::Index(index)));
        }
    }
}

fn platforms() -> impl Iterator<Item = Platform> {
    ["linux/amd64", "linux/arm64", "linux/arm/v7"]
        .into_iter()
        .filter_map(|name| name.parse().ok())
}

/// A source of documents, found by their digests.
#[derive(Debug)]
struct Documents {
    root: Vec<u8>,
    others: HashMap<Digest, Vec<u8>>,
}

impl Documents {
    fn new(documents: &[&[u8]]) -> Self {
        let others = documents.iter().skip(1);
        Self {
            root: documents.first().map_or(Vec::new(), |bytes| bytes.to_vec()),
            others: others
                .map(|bytes| (Digest::of(bytes), bytes.to_vec()))
                .collect(),
        }
    }

    fn get(&self, digest: &Digest) -> Result<Vec<u8>, OciError> {
        let found = self.others.get(digest).cloned();
        found.ok_or_else(|| OciError::invalid(digest.to_string(), "it is not there"))
    }
}

impl Source for Documents {
    fn describe(&self) -> String {
        "documents".to_owned()
    }

    fn root(&self) -> Result<RawManifest, OciError> {
        Ok(RawManifest::of("", self.root.clone()))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, OciError> {
        Ok(RawManifest::of(
            &descriptor.media_type,
            self.get(&descriptor.digest)?,
        ))
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OciError> {
        Ok(Box::new(Cursor::new(self.get(&blob.digest)?)))
    }
}
