//! From a place to the parts of one image.

use std::io::Read;

use crate::{
    Descriptor, Digest, ImageConfig, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest, OciError,
    Parsed, Platform, Source, Verified, media,
};

/// Indexes within indexes deeper than this are refused.
const MAX_DEPTH: usize = 4;

/// An image that a source has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its parts.
    pub manifest: Manifest,
    /// Digest of the manifest.
    pub manifest_digest: Digest,
    /// Its configuration, with as many layers as the manifest.
    pub config: ImageConfig,
    /// Digest of the configuration: the image's name that is the same everywhere.
    pub config_digest: Digest,
    /// The configuration as it lies there.
    pub config_bytes: Vec<u8>,
}

/// Finds the image for this platform: the root of the source, if that is an index the manifest chosen from it, and its
/// configuration. Everything is bounded and verified.
///
/// # Errors
///
/// That of the source; [`OciError::Invalid`] when there is no image for the platform, or what is there is no image.
pub fn resolve(source: &dyn Source, platform: &Platform) -> Result<Resolved, OciError> {
    let (manifest, manifest_digest) = manifest(source, platform)?;
    let bad = |reason: String| OciError::invalid(source.describe(), reason);
    let kind = manifest.config.media_type.as_str();
    if !is_image_config(kind) {
        let kind = manifest.artifact_type.as_deref().unwrap_or(kind);
        return Err(bad(format!("it is no image, but {kind}")));
    }
    let config_bytes = read_blob(source, &manifest.config, MAX_CONFIG_BYTES)?;
    let config = ImageConfig::parse(&config_bytes)?;
    let (named, there) = (config.rootfs.diff_ids.len(), manifest.layers.len());
    if named != there {
        return Err(bad(format!(
            "its configuration names {named} layers, its manifest {there}"
        )));
    }
    if !config.platform.architecture.is_empty() && !platform.runs(&config.platform) {
        let has = config.platform.normalized();
        return Err(bad(format!(
            "it is for {has}, not for {}",
            platform.normalized()
        )));
    }
    Ok(Resolved {
        config_digest: manifest.config.digest,
        manifest,
        manifest_digest,
        config,
        config_bytes,
    })
}

/// Reads a small blob, verified.
///
/// # Errors
///
/// That of the source; [`OciError::Invalid`] when it has more than `limit` bytes.
pub fn read_blob(source: &dyn Source, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, OciError> {
    if blob.size > limit {
        let reason = format!("it has {} bytes, more than {limit}", blob.size);
        return Err(OciError::invalid(format!("blob {}", blob.digest), reason));
    }
    let mut bytes = Vec::new();
    let place = format!("{} of {}", blob.digest, source.describe());
    Verified::new(source.open(blob)?, blob)
        .read_to_end(&mut bytes)
        .map_err(|error| OciError::of_io("reading", place, error))?;
    Ok(bytes)
}

fn manifest(source: &dyn Source, platform: &Platform) -> Result<(Manifest, Digest), OciError> {
    let mut raw = source.root()?;
    for _ in 0..=MAX_DEPTH {
        let index = match raw.parse()? {
            Parsed::Manifest(manifest) => return Ok((manifest, raw.digest)),
            Parsed::Index(index) => index,
        };
        let chosen = index.choose(platform)?;
        if chosen.size > MAX_MANIFEST_BYTES {
            let reason = format!("it has more than {MAX_MANIFEST_BYTES} bytes");
            return Err(OciError::invalid(
                format!("manifest {}", chosen.digest),
                reason,
            ));
        }
        raw = source.manifest(chosen)?;
        if raw.digest != chosen.digest {
            return Err(OciError::Mismatch {
                what: chosen.digest.to_string(),
                reason: format!("its content has the digest {}", raw.digest),
            });
        }
    }
    let reason = format!("its indexes lie more than {MAX_DEPTH} deep in each other");
    Err(OciError::invalid(source.describe(), reason))
}

/// Whether it is one as Docker takes it: some registries told nothing, or that it is bytes.
fn is_image_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | media::CONFIG | media::DOCKER_CONFIG | "application/octet-stream"
    )
}
