//! Pulling images.

use hm_vm_core::Cancellation;
use hm_vm_oci::Platform;

/// How to pull.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PullOptions {
    /// `None` is that of the backend.
    pub platform: Option<Platform>,
    /// Ends the pull early.
    pub cancel: Cancellation,
}

/// One layer of an image that is being pulled, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// The beginning of its digest.
    pub layer: String,
    /// What is being done with it, in the daemon's words: `Downloading`, `Extracting`, `Pull complete`.
    pub state: String,
    /// Bytes that are done of it.
    pub done: u64,
    /// How many there are, if that is known.
    pub total: Option<u64>,
}

/// An image that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PulledImage {
    /// Its id: the digest that stands for it in keys.
    pub id: String,
    /// `name@sha256:…` under which the registry knows it.
    pub digest: Option<String>,
    /// Bytes of its layers, unpacked.
    pub bytes: u64,
}
