//! Layers, snapshots and caches for others to read.
//!
//! * [`tree`]: a tree as a tar archive that depends on nothing but the tree; [`header`] writes its headers.
//! * [`packing`]: archive, digests and compressed file in one pass.
//! * [`blob`]: layers as OCI blobs, and what is remembered of them.
//! * [`image`]: snapshots and images as OCI images; [`sending`] brings their layers there, [`config`] writes the
//!   configuration, [`held`] keeps what is read.
//! * [`cache`]: named cache directories, there and back.
//!
//! # What is in an archive
//!
//! The same tree gives the same bytes on every machine, for root and for ordinary users. Directories come before what
//! is in them; in each, first the mark of an opaque one, then everything else by name, then its directories by name. A
//! whiteout is `.wh.NAME`, an opaque directory has `.wh..wh..opq`, as the OCI has it; below an opaque directory neither
//! means anything, and both are left out. A file that the guest itself called `.wh.…` cannot be told in this form: such a
//! layer is refused. Owners are numbers as the guest sees them; times have nanoseconds. Holes are zeros: where a file has
//! holes is the file system's choice, and not every reader knows them. Sockets are left out, as are the overlay's notes
//! (`user.overlay.*`) and labels that the system sets (`security.*` but for capabilities, `trusted.*`).

mod blob;
mod cache;
mod config;
mod header;
mod held;
mod image;
mod options;
mod packing;
mod sending;
mod tree;

pub(crate) use blob::LayerBlob;
pub use cache::{CacheImport, CacheOptions};
pub use options::{ExportOptions, ExportReport, ImageFormat};
