//! Manifests: which parts make an image, and which images make an index.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Descriptor, Digest, OciError, Platform, bounded, media};

/// A manifest or index larger than this is refused: 4 MiB, as registries have it.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// A configuration larger than this is refused.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// A manifest or an index as its bytes: its digest is theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    /// What it is, as it was told or as its own bytes say.
    pub media_type: String,
    /// Digest of the bytes.
    pub digest: Digest,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a [`RawManifest`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Parsed {
    /// One image, or another artifact.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

impl RawManifest {
    /// These bytes, of this media type; where it is empty or says nothing, the type that the bytes themselves tell.
    pub fn of(media_type: &str, bytes: Vec<u8>) -> Self {
        let told = media_type.split(';').next().unwrap_or("").trim();
        let media_type = match told {
            "" | "application/json" | "application/octet-stream" | "text/plain" => {
                Probe::of(&bytes).map_or(String::new(), |probe| {
                    probe.media_type_of_content().to_owned()
                })
            }
            told => told.to_owned(),
        };
        Self {
            digest: Digest::of(&bytes),
            media_type,
            bytes,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`OciError::Invalid`] when it is no manifest; is an old one of schema 1; is of another kind than its media type
    /// says, or of two at once, so that others may see another image in it; has too many parts, or parts whose sizes
    /// have no sum.
    pub fn parse(&self) -> Result<Parsed, OciError> {
        let bad = |reason: String| OciError::invalid(format!("manifest {}", self.digest), reason);
        if self.bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(bad(format!("it has more than {MAX_MANIFEST_BYTES} bytes")));
        }
        let probe = Probe::of(&self.bytes).map_err(|error| bad(error.to_string()))?;
        if let Some(reason) = probe.trouble(&self.media_type) {
            return Err(bad(reason));
        }
        if probe.manifests {
            let index: Index =
                serde_json::from_slice(&self.bytes).map_err(|error| bad(error.to_string()))?;
            return Ok(Parsed::Index(index));
        }
        let manifest: Manifest =
            serde_json::from_slice(&self.bytes).map_err(|error| bad(error.to_string()))?;
        if manifest.total_size().is_none() {
            return Err(bad("the sizes of its parts have no sum".to_owned()));
        }
        Ok(Parsed::Manifest(manifest))
    }
}

/// What tells kinds of manifests apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u64>,
    media_type: Option<String>,
    #[serde(default, deserialize_with = "present")]
    manifests: bool,
    #[serde(default, deserialize_with = "present")]
    config: bool,
    #[serde(default, deserialize_with = "present")]
    layers: bool,
    #[serde(default, rename = "fsLayers", deserialize_with = "present")]
    fs_layers: bool,
}

impl Probe {
    fn of(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    fn media_type_of_content(&self) -> &str {
        match &self.media_type {
            Some(said) if !said.is_empty() => said,
            _ if self.manifests => media::INDEX,
            _ => media::MANIFEST,
        }
    }

    /// Why it cannot be used, if it was told to be `media_type`.
    fn trouble(&self, media_type: &str) -> Option<String> {
        if self.schema_version == Some(1)
            || self.fs_layers
            || media_type.contains("manifest.v1+prettyjws")
        {
            return Some(
                "it is of schema 1, which has not been written for years: push the image again with a newer tool"
                    .to_owned(),
            );
        }
        if self.manifests && (self.config || self.layers) {
            return Some("it is an image and an index at once".to_owned());
        }
        if !self.manifests && !self.config {
            return Some("it is neither the manifest of an image nor an index".to_owned());
        }
        let types = [media_type, self.media_type.as_deref().unwrap_or("")];
        for told in types.into_iter().filter(|told| !told.is_empty()) {
            let is_index = match told {
                media::INDEX | media::DOCKER_LIST => true,
                media::MANIFEST | media::DOCKER_MANIFEST => false,
                other => return Some(format!("its type {other:?} is not known")),
            };
            if is_index != self.manifests {
                return Some(format!("it is not what its type {told} says"));
            }
        }
        None
    }
}

/// Whether a field is there; what is in it is passed over without being kept.
fn present<'de, D: serde::Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
    let there = Option::<serde::de::IgnoredAny>::deserialize(input)?;
    Ok(there.is_some())
}

/// The JSON of one of our own types.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and tables by text always have a form in JSON")
}

/// The parts of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it holds, when that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, bottom first.
    #[serde(default, deserialize_with = "bounded::parts")]
    pub layers: Vec<Descriptor>,
    /// What is said of it.
    #[serde(
        default,
        deserialize_with = "bounded::table",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// Images of one name for several platforms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Manifests, and indexes.
    #[serde(default, deserialize_with = "bounded::parts")]
    pub manifests: Vec<Descriptor>,
    /// What is said of it.
    #[serde(
        default,
        deserialize_with = "bounded::table",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// As it is written: the same manifest has always the same bytes.
    pub fn to_raw(&self) -> RawManifest {
        let media_type = self.media_type.as_deref().unwrap_or(media::MANIFEST);
        RawManifest::of(media_type, json(self))
    }

    /// Bytes of all its parts together, if that is a number.
    pub fn total_size(&self) -> Option<u64> {
        let mut sizes = self.layers.iter().map(|layer| layer.size);
        sizes.try_fold(self.config.size, u64::checked_add)
    }
}

impl Index {
    /// As it is written: the same index has always the same bytes.
    pub fn to_raw(&self) -> RawManifest {
        let media_type = self.media_type.as_deref().unwrap_or(media::INDEX);
        RawManifest::of(media_type, json(self))
    }

    /// The image for this platform, as Docker and containerd choose it: what fits best, the first of several that fit
    /// equally; if nothing fits, the first one of which no platform is told. Signatures and attestations are none.
    ///
    /// # Errors
    ///
    /// [`OciError::Invalid`], which lists the platforms that there are.
    pub fn choose(&self, wanted: &Platform) -> Result<&Descriptor, OciError> {
        let images = || self.manifests.iter().filter(|entry| is_image(entry));
        for platform in wanted.compatible() {
            let fits = |entry: &&Descriptor| {
                (entry.platform.as_ref()).is_some_and(|has| has.normalized() == platform)
            };
            if let Some(found) = images().find(fits) {
                return Ok(found);
            }
        }
        if let Some(found) = images().find(|entry| entry.platform.is_none()) {
            return Ok(found);
        }
        let mut there: Vec<String> = images()
            .filter_map(|entry| entry.platform.as_ref())
            .map(|platform| platform.normalized().to_string())
            .collect();
        there.sort();
        there.dedup();
        let reason = match there.len() {
            0 => "it is for no platform at all".to_owned(),
            1..=32 => format!("it is there for {}", there.join(", ")),
            count => format!(
                "it is there for {count} others: {}, …",
                there[..32].join(", ")
            ),
        };
        let wanted = wanted.normalized();
        Err(OciError::invalid(format!("no image for {wanted}"), reason))
    }
}

/// Whether an entry of an index may be an image for some platform.
fn is_image(entry: &Descriptor) -> bool {
    let is_manifest = matches!(
        entry.media_type.as_str(),
        "" | media::MANIFEST | media::DOCKER_MANIFEST | media::INDEX | media::DOCKER_LIST
    );
    let is_unknown = entry.platform.as_ref().is_some_and(Platform::is_unknown);
    is_manifest && !is_unknown && !entry.annotations.contains_key("vnd.docker.reference.type")
}
