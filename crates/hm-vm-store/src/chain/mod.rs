//! Snapshots as other stores name them, and bringing those of others here.
//!
//! Numbers of layers are a store's own. Elsewhere a layer is known by its *diff id*, the digest of its archive without
//! compression, and a whole snapshot by its *chain*: the digest of its image and the diff ids of all layers
//! above that, bottom first. Two snapshots of one chain have the same files.
//!
//! ```text
//! chain of the image   c0 = blake3("hm-vm chain 1\n" digest-of-the-image)
//! with layer i         ci = blake3(c(i-1) "\n" diff-id-of-layer-i)      both as text
//! ```
//!
//! A snapshot's chain is its parent's with the layers of its own commit, whatever became of those layers here: merged
//! ones are another way to have the same files. It is found out when it is first asked for, and kept.
//!
//! * [`id`]: the names.
//! * [`own`]: the chain of a snapshot that is here, with access to its layers.
//! * [`adopt`]: a snapshot of another store becomes one of this store. [`missing`] brings its layers,
//!   [`injects`] what is known of injected trees, [`hold`] keeps what it stands on.

mod adopt;
mod id;
mod injects;
mod missing;
mod own;
mod plan;

pub use adopt::{Adopted, Adoption};
pub use id::{ChainInject, ChainLayer};
pub use own::{PackedLayer, SnapshotChain, SnapshotHold};
