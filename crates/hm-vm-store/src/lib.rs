//! Images and snapshots on disk.
//!
//! A [`Store`] is a directory with *layers* (immutable trees of files) and rows that say who uses
//! them. A *VM*, to the store, is a stack of layers with a writable directory over it
//! ([`VmFiles`]). A *snapshot* is a stack of layers with a name: made by renaming the writable
//! directory into the store.
//!
//! # Whole at every moment
//!
//! Rows are truth; files without a row are garbage. On the way in, a number is reserved by a row,
//! files are made, and a second row makes them visible; on the way out the row goes first.
//! What is unfinished belongs to a session, whose lock dies with its process; whoever opens the
//! store next takes over what dead sessions left, and removes it. Any number of processes may use
//! a store at once.
//!
//! # Durable without waiting
//!
//! A snapshot is visible at once. A background thread syncs the file system and then marks rows
//! durable. Rows remember the boot that made them: those of an earlier boot that were never
//! marked are dropped, since their files may be incomplete after a loss of power.
//!
//! # Locking order
//!
//! The state of a [`VmFiles`], then a database connection. Files are never handled as root of the
//! user namespace while a lock is held that such work takes; such work never uses the database.
#![forbid(unsafe_code)]

mod background;
mod beneath;
mod caches;
mod chain;
mod content;
mod db;
mod error;
mod export;
mod files;
pub mod host;
pub mod import;
pub mod inject;
mod layer_lock;
mod layers;
mod layout;
mod pull;
mod session;
mod store;
mod transfer;
mod tree;
mod view;
mod vm;

pub use beneath::FileFailure;
pub use caches::{CacheInfo, CacheLock};
pub use chain::{
    Adopted, Adoption, ChainInject, ChainLayer, PackedLayer, SnapshotChain, SnapshotHold,
};
pub use error::StoreError;
pub use export::{CacheImport, CacheOptions, ExportOptions, ExportReport, ImageFormat};
pub use pull::PullOptions;
pub use store::{
    CollectReport, ImageDefaults, ImageInfo, Leftover, SnapshotInfo, Store, StoreStats,
};
pub use transfer::{TransferPart, TransferWatch, Unwatched};
pub use view::{
    ArchivedOutputs, Change, ChangeKind, CopyOptions, CopyReport, DirEntry, FileKind, Metadata,
    OpenLinks, OutputPart, View, WalkEntry,
};
pub use vm::{Base, InjectReport, Lower, VmFiles};
