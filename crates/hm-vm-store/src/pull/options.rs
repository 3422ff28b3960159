//! How to pull.

use std::sync::Arc;

use hm_vm_core::Cancellation;
use hm_vm_oci::Platform;

use crate::import::LayerLimits;
use crate::transfer::{TransferWatch, Unwatched};

/// How to pull an image.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// What it is to run on.
    pub platform: Platform,
    /// How large the whole image may be.
    pub limits: LayerLimits,
    /// Is told of every layer.
    pub watch: Arc<dyn TransferWatch>,
    /// Ends the pull.
    pub cancel: Cancellation,
    /// Where the image lies, in full, if that is a place that can be asked again.
    pub reference: Option<String>,
}

impl Default for PullOptions {
    /// For this machine, 64 GiB and five million entries at most, watched by nobody.
    fn default() -> Self {
        Self {
            platform: Platform::here(),
            limits: LayerLimits::default(),
            watch: Arc::new(Unwatched),
            cancel: Cancellation::new(),
            reference: None,
        }
    }
}
