//! The `host` image: this machine's own root as the lowest layer, private parts masked.

mod error;
mod fingerprint;
mod mask;
mod private;
mod submounts;

pub use error::HostError;
pub use fingerprint::fingerprint;
pub use mask::{HostMaskOptions, mask_identity, mask_layer};
pub use submounts::{Submount, submounts};
