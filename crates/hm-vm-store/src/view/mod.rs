//! The files of snapshots and images, put together from their layers without a mount.
//!
//! * [`merged`]: what overlayfs would show: directories of several layers joined, whiteouts and
//!   opaque directories honoured.
//! * [`resolve`]: paths, with symbolic links followed inside the tree only.
//! * [`reader`]: [`View`], for reading.
//! * [`diff`]: comparing two trees.
//! * [`copy_out`], [`outputs`]: bringing files out; [`copier`] writes, [`patterns`] finds. [`archived`] does it for files that
//!   somebody else keeps.

mod archived;
mod copier;
mod copy_out;
mod diff;
mod entries;
pub(crate) mod merged;
mod outputs;
mod patterns;
mod reader;
pub(crate) mod resolve;

pub use archived::{ArchivedOutputs, OpenLinks, OutputPart};
pub use copy_out::{CopyOptions, CopyReport};
pub use diff::{Change, ChangeKind};
pub use entries::{DirEntry, FileKind, Metadata, WalkEntry};
pub use reader::View;
pub(crate) use reader::{absolute, guest_error, layer_paths, open_stack, release_lease};
