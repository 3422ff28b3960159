//! The OCI's image layout: `oci-layout`, `index.json` and `blobs/sha256/…`, in a directory or in an archive.

mod directory;
mod names;
mod source;
mod writer;

pub(crate) use directory::Directory;
pub(crate) use names::{OfSeveral, choose_name};
pub(crate) use source::{LayoutSource, Place, blob_path};
pub use writer::LayoutWriter;
pub(crate) use writer::{NAME_CONTAINERD, NAME_OCI, copy_blob, named};

/// The file that says that a directory is a layout.
pub(crate) const MARKER: &str = "oci-layout";
/// The file that names the images.
pub(crate) const INDEX: &str = "index.json";
/// What the marker contains.
pub(crate) const MARKER_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Directory of the blobs.
pub(crate) const BLOBS: &str = "blobs/sha256";
