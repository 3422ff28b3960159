//! Bringing a host directory into a VM as a layer of its own (design.md 11).
//!
//! [`scan`] walks the host directory and yields a [`Tree`]: every entry with the hash of its
//! content, and the digest of the whole for the cache key. With a [`StatCache`], an unchanged file
//! costs one `fstatat` and is not opened. [`write_layer`] makes a layer of the tree below a fresh
//! directory: files are linked from an earlier layer where content and mode are equal, cloned
//! where the file system can, else copied.
//!
//! # What is brought
//!
//! Directories (empty ones too), regular files and symbolic links, hidden ones included. Left out:
//!
//! * what a `.gitignore` or `.hmvmignore` names, with git's rules; `.hmvmignore` has precedence.
//!   Those of parent directories count up to the root of the repository that the directory lies
//!   in, nothing beyond it. Neither `core.excludesFile` nor `.git/info/exclude` counts: the same
//!   checkout gives the same tree on every machine;
//! * `.git`, unless `.hmvmignore` says `!.git`;
//! * fifos, sockets and devices, each with a notice.
//!
//! [`scan_source`] brings less, or other things, as its patterns say.
//!
//! # Threads
//!
//! Both functions start threads. They must not be called inside `UserNamespace::run`, and need
//! not be: what they write belongs to the calling user, who is the guest's root.

mod copying;
mod error;
mod filter;
mod guest;
mod hashing;
mod layer;
mod listing;
mod manifest;
mod place;
mod queue;
mod removal;
mod rules;
mod scan;
mod source;
mod stat_cache;
mod tree;
mod walk;

pub use error::InjectError;
pub use guest::{DirectoryAttributes, EmptyGuest, GuestEntry, GuestView};
pub(crate) use layer::write_layer_watched;
pub use layer::{LayerReport, LayerRequest, LinkSource, layer_identity, set_owners, write_layer};
pub use listing::listed;
pub use scan::{scan, scan_source};
pub use source::{SourceDirectory, SourceFile, SourceReader};
pub use stat_cache::StatCache;
pub use tree::{Entry, EntryKind, Tree};
