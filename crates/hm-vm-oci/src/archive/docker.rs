//! What `docker save` and `podman save` write: `manifest.json`, configurations, and layers as archives of their own.

use std::collections::HashMap;
use std::io::{Read, copy, sink};

use serde::Deserialize;

use super::Members;
use crate::layout::{OfSeveral, choose_name};
use crate::{
    Descriptor, Digest, Hasher, ImageConfig, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest,
    OciError, RawManifest, Source, bounded, media,
};

/// The file that names the images.
pub(crate) const MANIFEST: &str = "manifest.json";

/// What it says of one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    config: String,
    #[serde(default, deserialize_with = "bounded::entries")]
    repo_tags: Vec<String>,
    #[serde(deserialize_with = "bounded::parts")]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Entries(#[serde(deserialize_with = "bounded::parts")] Vec<Entry>);

/// The images that `manifest.json` names; nothing when there is no such file, or it is another one of that name.
pub(crate) fn entries(members: &Members) -> Result<Option<Vec<Entry>>, OciError> {
    if !members.contains(MANIFEST) {
        return Ok(None);
    }
    let Ok(bytes) = members.read(MANIFEST, MAX_MANIFEST_BYTES) else {
        return Ok(None);
    };
    Ok(serde_json::from_slice(&bytes)
        .ok()
        .map(|Entries(entries)| entries))
}

/// One image of such an archive. It has no manifest there: it gets one, of its layers as they lie there.
#[derive(Debug)]
pub(crate) struct DockerSource {
    members: Members,
    manifest: RawManifest,
    /// Names of the members that blobs lie in.
    blobs: HashMap<Digest, String>,
}

impl DockerSource {
    /// The image of this name; without one, the only one.
    pub(crate) fn new(
        members: Members,
        entries: Vec<Entry>,
        name: Option<&str>,
    ) -> Result<Self, OciError> {
        let place = members.path().display().to_string();
        let images = entries.into_iter().map(|image| {
            let mut names = image.repo_tags.clone();
            names.extend(
                name.filter(|name| is_id(&image.config, name))
                    .map(str::to_owned),
            );
            OfSeveral { names, image }
        });
        let mut meant = choose_name(images.collect(), name, &place)?;
        let entry = meant.remove(0);
        if !meant.is_empty() {
            let reason = "it contains several images that have no names, or the same";
            return Err(OciError::invalid(place, reason));
        }
        let config_bytes = members.read(&entry.config, MAX_CONFIG_BYTES)?;
        let config = ImageConfig::parse(&config_bytes)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != entry.layers.len() {
            let (named, there) = (diff_ids.len(), entry.layers.len());
            let reason = format!("its configuration names {named} layers, its {MANIFEST} {there}");
            return Err(OciError::invalid(place, reason));
        }
        let mut layers = Vec::new();
        let mut blobs = HashMap::new();
        for (name, diff_id) in entry.layers.iter().zip(diff_ids) {
            let layer = layer(&members, name, *diff_id)?;
            blobs.insert(layer.digest, name.clone());
            layers.push(layer);
        }
        let config = Descriptor::of(media::CONFIG, &config_bytes);
        blobs.insert(config.digest, entry.config);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            annotations: Default::default(),
        };
        Ok(Self {
            members,
            manifest: manifest.to_raw(),
            blobs,
        })
    }
}

impl Source for DockerSource {
    fn describe(&self) -> String {
        self.members.path().display().to_string()
    }

    fn root(&self) -> Result<RawManifest, OciError> {
        Ok(self.manifest.clone())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, OciError> {
        if descriptor.digest == self.manifest.digest {
            return Ok(self.manifest.clone());
        }
        Err(self.missing(descriptor))
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OciError> {
        let name = self
            .blobs
            .get(&blob.digest)
            .ok_or_else(|| self.missing(blob))?;
        Ok(Box::new(self.members.member(name)?.0))
    }
}

impl DockerSource {
    fn missing(&self, blob: &Descriptor) -> OciError {
        OciError::NotFound {
            what: blob.digest.to_string(),
            place: self.describe(),
        }
    }
}

/// A layer as it lies there. One that is not compressed has the digest that the configuration names: it is not read
/// here, whoever unpacks it checks it. The others are read once.
fn layer(members: &Members, name: &str, diff_id: Digest) -> Result<Descriptor, OciError> {
    let (mut reader, size) = members.member(name)?;
    let failed = |error| OciError::of_io("reading", members.path().display(), error);
    let mut start = Vec::new();
    (&mut reader)
        .take(4)
        .read_to_end(&mut start)
        .map_err(failed)?;
    let media_type = match start[..] {
        [0x1f, 0x8b, ..] => media::LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media::LAYER_ZSTD,
        _ => return Ok(Descriptor::new(media::LAYER, diff_id, size)),
    };
    let mut hashing = Hashing {
        input: members.member(name)?.0,
        hasher: Hasher::default(),
    };
    copy(&mut hashing, &mut sink()).map_err(failed)?;
    Ok(Descriptor::new(media_type, hashing.hasher.finish(), size))
}

struct Hashing<R> {
    input: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Whether a name is the image's id, as the file of its configuration is called: with or without its algorithm.
fn is_id(config: &str, name: &str) -> bool {
    let file = config.rsplit('/').next().unwrap_or(config);
    let id = file.strip_suffix(".json").unwrap_or(file);
    let hex = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).to_owned();
    hex(id).len() == 64 && hex(id) == hex(name)
}
