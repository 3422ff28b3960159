//! What an entry of a shared cache says.
//!
//! An entry is an OCI artifact at a tag made of its key. Its configuration is the record; its layers are the snapshot's layers
//! above the image, bottom first, then what is known of injected trees, one list for each place, then the log of
//! the command's output, if it has any.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hm_vm_core::{KeyComponents, SnapshotId};
use hm_vm_oci::{Descriptor, Digest, Manifest, RawManifest, media};
use hm_vm_store::{Adoption, ChainInject, ChainLayer};
use serde::{Deserialize, Serialize};

use super::health::Failure;
use super::port::RemoteEntry;

/// What the artifact is.
pub(super) const ARTIFACT: &str = "application/vnd.hm-vm.cache.v1";
/// Its configuration.
pub(super) const RECORD: &str = "application/vnd.hm-vm.cache.record.v1+json";
/// The log in it.
pub(super) const LOG: &str = "application/vnd.hm-vm.log.v2";
/// What is known of an injected tree.
const INJECT: &str = "application/vnd.hm-vm.inject.v1";

/// Version of the record.
const VERSION: u32 = 1;

/// A record larger than this is refused.
pub(super) const MAX_RECORD_BYTES: u64 = 4 << 20;

/// A log larger than this is refused, packed and unpacked.
const MAX_LOG_BYTES: u64 = 1 << 30;
pub(super) const MAX_OUTPUT_BYTES: u64 = 16 << 30;

/// The tag of a key.
pub(super) fn tag(key: &str) -> String {
    let hash = blake3::hash(key.as_bytes()).to_hex();
    format!("hm1-{}", &hash[..60])
}

/// What is in the artifact's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) key: String,
    pub(super) snapshot: String,
    parent: Option<String>,
    image: Option<String>,
    /// Digest of the image.
    base: String,
    chain: String,
    diff_ids: Vec<Digest>,
    own: usize,
    depth: u32,
    /// Places with injects.
    injects: Vec<String>,
    created_us: u64,
    cost_us: Option<u64>,
    output_bytes: u64,
    pub(super) components: Option<KeyComponents>,
}

/// An entry that makes sense.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) entry: RemoteEntry,
    pub(super) adoption: Adoption,
    pub(super) components: Option<KeyComponents>,
    pub(super) log: Option<Descriptor>,
    pub(super) output_bytes: u64,
}

impl Record {
    /// The record of a snapshot.
    pub(super) fn new(
        key: &str,
        adoption: &Adoption,
        entry: &RemoteEntry,
        components: Option<KeyComponents>,
        output_bytes: u64,
    ) -> Self {
        let cost = entry.cost.map(|cost| cost.as_micros());
        Self {
            version: VERSION,
            key: key.to_owned(),
            snapshot: adoption.id.to_string(),
            parent: entry.parent.as_ref().map(ToString::to_string),
            image: adoption.image.clone(),
            base: adoption.base_digest.clone(),
            chain: adoption.chain(),
            diff_ids: adoption.layers.iter().map(|layer| layer.diff_id).collect(),
            own: adoption.own,
            depth: adoption.depth,
            injects: adoption
                .injects
                .iter()
                .map(|inject| inject.place.clone())
                .collect(),
            created_us: micros(entry.created),
            cost_us: cost.map(|cost| u64::try_from(cost).unwrap_or(u64::MAX)),
            output_bytes,
            components,
        }
    }

    /// Reads a record. `None` for one of another version.
    pub(super) fn parse(bytes: &[u8], tag: &str) -> Result<Option<Self>, Failure> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let wrong = |error: serde_json::Error| {
            Failure::lie(format!("the record of {tag}"), error.to_string())
        };
        let versioned: Versioned = serde_json::from_slice(bytes).map_err(wrong)?;
        if versioned.version != VERSION {
            return Ok(None);
        }
        serde_json::from_slice(bytes).map(Some).map_err(wrong)
    }

    /// Puts record and manifest together, and checks that they fit.
    pub(super) fn check(self, key: &str, manifest: &Manifest) -> Result<Found, Failure> {
        let lie = |reason: String| Failure::lie(format!("the shared result of key {key}"), reason);
        if self.key != key {
            return Err(lie(format!("it is that of key {:?}", self.key)));
        }
        let (count, injects) = (self.diff_ids.len(), self.injects.len());
        let parts = &manifest.layers;
        let log = match parts.len().checked_sub(count + injects) {
            Some(0) => None,
            Some(1) => parts.last().cloned(),
            _ => return Err(lie(format!("it has {} parts", parts.len()))),
        };
        let (layers, rest) = parts.split_at(count);
        let is_layer = |part: &Descriptor| {
            matches!(
                &*part.media_type,
                media::LAYER_ZSTD | media::LAYER_GZIP | media::LAYER
            )
        };
        let fits = layers.iter().all(is_layer)
            && rest[..injects].iter().all(|part| part.media_type == INJECT)
            && log.as_ref().is_none_or(|log| log.media_type == LOG);
        if !fits {
            return Err(lie("its parts are not of the right kinds".into()));
        }
        if log.as_ref().is_some_and(|log| log.size > MAX_LOG_BYTES)
            || self.output_bytes > MAX_OUTPUT_BYTES
        {
            return Err(lie("its output is too long".into()));
        }
        let pair = |(diff_id, blob): (&Digest, &Descriptor)| ChainLayer {
            diff_id: *diff_id,
            blob: plain(blob),
        };
        let created =
            UNIX_EPOCH + Duration::from_micros(self.created_us.min(micros(SystemTime::now())));
        let adoption = Adoption {
            id: SnapshotId::new(self.snapshot),
            label: Some(key.to_owned()),
            parent: self.parent.map(SnapshotId::new),
            image: self.image,
            base_digest: self.base,
            depth: self.depth,
            created,
            layers: self.diff_ids.iter().zip(layers).map(pair).collect(),
            own: self.own,
            injects: self
                .injects
                .into_iter()
                .zip(rest)
                .map(|(place, manifest)| ChainInject {
                    place,
                    manifest: plain(manifest),
                })
                .collect(),
        };
        if adoption.chain() != self.chain {
            return Err(lie("its layers are not those of its chain".into()));
        }
        Ok(Found {
            entry: RemoteEntry {
                snapshot: adoption.id.clone(),
                parent: adoption.parent.clone(),
                base: Some(adoption.base_digest.clone()),
                created,
                cost: self.cost_us.map(Duration::from_micros),
            },
            adoption,
            components: self.components,
            log,
            output_bytes: self.output_bytes,
        })
    }
}

impl Found {
    /// Bytes of all parts.
    pub(super) fn bytes(&self) -> u64 {
        let layers = self.adoption.layers.iter().map(|layer| layer.blob.size);
        let injects = self.adoption.injects.iter();
        let injects = injects.map(|inject| inject.manifest.size);
        let log = self.log.iter().map(|log| log.size);
        layers
            .chain(injects)
            .chain(log)
            .fold(0, u64::saturating_add)
    }
}

/// Reads the manifest of an entry.
pub(super) fn manifest(raw: &RawManifest, tag: &str) -> Result<Manifest, Failure> {
    let lie = |reason: String| Failure::lie(format!("the manifest of {tag}"), reason);
    let manifest: Manifest =
        serde_json::from_slice(&raw.bytes).map_err(|error| lie(error.to_string()))?;
    if manifest.schema_version != 2
        || manifest.artifact_type.as_deref() != Some(ARTIFACT)
        || manifest.config.media_type != RECORD
    {
        return Err(lie("it is not that of a shared result".into()));
    }
    if manifest.config.size > MAX_RECORD_BYTES {
        return Err(lie("its record is too long".into()));
    }
    Ok(manifest)
}

/// Nothing but what matters: no other places, no remarks.
fn plain(blob: &Descriptor) -> Descriptor {
    Descriptor::new(&blob.media_type, blob.digest, blob.size)
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
