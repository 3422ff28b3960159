//! What a manifest says of a part of an image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Platform, bounded};

/// Media types.
pub mod media {
    /// OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, not compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, compressed with gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, compressed with zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's list of manifests.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer, compressed with gzip whatever its name says.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker's layer, not compressed.
    pub const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker's layer, compressed with zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Docker's layer that lies elsewhere.
    pub const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    /// Docker's layers that lie elsewhere, however they are compressed.
    pub(crate) const DOCKER_FOREIGN_PREFIX: &str = "application/vnd.docker.image.rootfs.foreign.";
    /// The OCI's layers that lie elsewhere, however they are compressed.
    pub(crate) const NONDISTRIBUTABLE_PREFIX: &str =
        "application/vnd.oci.image.layer.nondistributable.";
}

/// What a manifest says of a part of an image: its name is its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Digest of its bytes as they lie there.
    pub digest: Digest,
    /// Number of these bytes.
    pub size: u64,
    /// Other places where it lies: of foreign layers.
    #[serde(
        default,
        deserialize_with = "bounded::entries",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// What is said of it.
    #[serde(
        default,
        deserialize_with = "bounded::table",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// What it runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A part of which nothing else is said.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
        }
    }

    /// That of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Whether it is a layer that registries need not have, as parts of Windows were.
    pub fn is_foreign(&self) -> bool {
        self.media_type.starts_with(media::DOCKER_FOREIGN_PREFIX)
            || self.media_type.starts_with(media::NONDISTRIBUTABLE_PREFIX)
    }

    /// How its bytes are compressed, by what the media type says. Writers err: the first bytes decide.
    pub fn compression(&self) -> Compression {
        match self.media_type.rsplit(['.', '+']).next() {
            Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("tar") => Compression::None,
            _ => Compression::Unknown,
        }
    }
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// With gzip.
    Gzip,
    /// With zstd.
    Zstd,
    /// Nothing is said, or something that is not known.
    Unknown,
}
