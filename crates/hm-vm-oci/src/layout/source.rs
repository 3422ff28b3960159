//! Reading an image from a layout.

use std::fmt;
use std::io::Read;

use super::{BLOBS, INDEX, NAME_CONTAINERD, NAME_OCI, OfSeveral, choose_name};
use crate::{
    Descriptor, Digest, Index, MAX_MANIFEST_BYTES, OciError, Parsed, RawManifest, Source, media,
};

/// Where the files of a layout lie.
pub(crate) trait Place: Send + Sync + fmt::Debug {
    /// What it is called in messages.
    fn describe(&self) -> String;

    /// Opens a file by its path in the layout, and tells its size.
    fn open(&self, path: &str) -> Result<(Box<dyn Read + Send>, u64), OciError>;
}

/// One image of a layout.
#[derive(Debug)]
pub(crate) struct LayoutSource<P> {
    place: P,
    root: Root,
}

#[derive(Debug)]
enum Root {
    /// A manifest or an index among the blobs.
    Blob(Descriptor),
    /// Some of the entries of the layout's own index: one name, several platforms.
    Entries(RawManifest),
}

impl<P: Place> LayoutSource<P> {
    /// The image of this name; without one, the only one.
    pub(crate) fn new(place: P, name: Option<&str>) -> Result<Self, OciError> {
        let described = place.describe();
        let bytes = read_file(&place, INDEX)?;
        let raw = RawManifest::of(media::INDEX, bytes);
        let Parsed::Index(index) = raw.parse()? else {
            return Err(OciError::invalid(described, "its index.json is no index"));
        };
        let mut entries = Vec::new();
        for image in index.manifests {
            let names = names_of(&image, name);
            entries.push(OfSeveral { names, image });
        }
        let mut meant = choose_name(entries, name, &described)?;
        let root = match meant.len() {
            1 => Root::Blob(meant.remove(0)),
            _ => Root::Entries(
                Index {
                    schema_version: 2,
                    media_type: Some(media::INDEX.to_owned()),
                    manifests: meant,
                    annotations: index.annotations,
                }
                .to_raw(),
            ),
        };
        Ok(Self { place, root })
    }
}

impl<P: Place> Source for LayoutSource<P> {
    fn describe(&self) -> String {
        self.place.describe()
    }

    fn root(&self) -> Result<RawManifest, OciError> {
        match &self.root {
            Root::Blob(descriptor) => self.manifest(descriptor),
            Root::Entries(index) => Ok(index.clone()),
        }
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, OciError> {
        let bytes = crate::read_blob(self, descriptor, MAX_MANIFEST_BYTES)?;
        Ok(RawManifest::of(&descriptor.media_type, bytes))
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OciError> {
        let (input, size) = self.place.open(&blob_path(&blob.digest))?;
        if size != blob.size {
            return Err(OciError::Mismatch {
                what: format!("{} in {}", blob.digest, self.describe()),
                reason: format!("it has {size} bytes instead of {}", blob.size),
            });
        }
        Ok(input)
    }
}

/// Where a blob lies in a layout.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

/// A small file of a layout.
fn read_file(place: &impl Place, path: &str) -> Result<Vec<u8>, OciError> {
    let (input, size) = place.open(path)?;
    let what = format!("{path} of {}", place.describe());
    if size > MAX_MANIFEST_BYTES {
        let reason = format!("it has {size} bytes, more than {MAX_MANIFEST_BYTES}");
        return Err(OciError::invalid(what, reason));
    }
    let mut bytes = Vec::new();
    let mut input = input.take(MAX_MANIFEST_BYTES);
    (input.read_to_end(&mut bytes)).map_err(|error| OciError::of_io("reading", what, error))?;
    Ok(bytes)
}

/// How an entry may be called: as `docker save` and containerd say in full, or by what the OCI's annotation says, which
/// some use for a tag only; by its digest only who asks for that.
fn names_of(entry: &Descriptor, asked: Option<&str>) -> Vec<String> {
    let annotation = |name: &str| entry.annotations.get(name).cloned();
    let mut names: Vec<String> = [annotation(NAME_CONTAINERD), annotation(NAME_OCI)]
        .into_iter()
        .flatten()
        .collect();
    let digest = entry.digest.to_string();
    if asked == Some(&digest) {
        names.push(digest);
    }
    names
}
