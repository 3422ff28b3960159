//! OCI images as the rest of the world sees them: references, manifests, and the places where the
//! parts of images lie: registries, layouts and archives.
//!
//! Knows nothing of stores, snapshots or layers on disk: `hm-vm-store` takes images apart and puts
//! them together through [`Source`] and [`Destination`].
//!
//! # Who is trusted
//!
//! Nobody that bytes come from. Manifests are bounded before they are read ([`MAX_MANIFEST_BYTES`],
//! [`MAX_CONFIG_BYTES`]) and checked against the digest by which they were asked for. Blobs are streams: who
//! reads one checks its size and digest while it passes ([`Verified`]).
//!
//! Everything here blocks the calling thread, within the time limits that a source was made with.
#![forbid(unsafe_code)]

mod archive;
mod bounded;
mod credentials;
mod daemon;
mod descriptor;
mod digest;
mod error;
mod image;
mod layout;
mod manifest;
mod platform;
mod reference;
mod registry;
mod resolve;
mod transfer;
mod verified;

pub use archive::{ArchiveWriter, LocalOptions, Members, open_local, open_local_with};
pub use credentials::{Credential, CredentialFiles, Found, Secret};
pub use daemon::{DaemonOptions, open_daemon};
pub use descriptor::{Compression, Descriptor, media};
pub use digest::{Digest, Hasher};
pub use error::OciError;
pub use image::{Execution, History, ImageConfig, RootFs};
pub use layout::LayoutWriter;
pub use manifest::{Index, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest, Parsed, RawManifest};
pub use platform::Platform;
pub use reference::Reference;
pub use registry::{HostOptions, Proxies, RegistryClient, RegistryOptions, Repository};
pub use resolve::{Resolved, read_blob, resolve};
pub use transfer::{Destination, Source};
pub use verified::Verified;
