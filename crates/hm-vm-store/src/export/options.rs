//! How images are written for others, and what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hm_vm_core::Cancellation;
use hm_vm_oci::{Compression, Digest};

use crate::transfer::{TransferWatch, Unwatched};

/// Whose words the manifest is written in. What it says is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageFormat {
    /// The OCI's.
    #[default]
    Oci,
    /// Docker's schema 2, for registries that know nothing else. Without zstd.
    Docker,
}

/// How to write an image.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Words of the manifest.
    pub format: ImageFormat,
    /// How layers are compressed that are not there yet. Docker before version 23 reads only gzip.
    pub compression: Compression,
    /// The cache key that the snapshot was made for: its label `dev.hm-vm.key`.
    pub key: Option<String>,
    /// Environment variables, over those of the image.
    pub env: BTreeMap<String, String>,
    /// Where commands run, instead of the image's own.
    pub working_dir: Option<String>,
    /// Labels, over those of the image.
    pub labels: BTreeMap<String, String>,
    /// Most layers that the image may have: the topmost are written as one where there are more. Docker makes no
    /// container of more than 127.
    pub max_layers: usize,
    /// Who is told of each layer.
    pub watch: Arc<dyn TransferWatch>,
    /// Ends it between two pieces of work. The destination has its own.
    pub cancel: Cancellation,
}

impl Default for ExportOptions {
    /// OCI, with zstd, and nothing said besides.
    fn default() -> Self {
        Self {
            format: ImageFormat::Oci,
            compression: Compression::Zstd,
            key: None,
            env: BTreeMap::new(),
            working_dir: None,
            labels: BTreeMap::new(),
            max_layers: 127,
            watch: Arc::new(Unwatched),
            cancel: Cancellation::new(),
        }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportReport {
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Digest of the configuration: the image's id.
    pub config: Digest,
    /// Number of layers.
    pub layers: usize,
    /// Bytes that travelled; the rest was there.
    pub sent_bytes: u64,
    /// Bytes of all parts, the manifest included.
    pub total_bytes: u64,
    /// What the user should know: what an image cannot hold.
    pub notices: Vec<String>,
}
