//! The store as a whole.

mod boot;
mod core;
mod open;
mod recovery;
mod snapshots;

pub(crate) use self::core::Core;
pub(crate) use self::snapshots::{new_name, now_micros};
pub use open::Store;
pub use snapshots::SnapshotInfo;
