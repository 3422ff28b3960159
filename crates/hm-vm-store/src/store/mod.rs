//! The store as a whole.

mod boot;
mod collect;
mod core;
pub(crate) mod image_defaults;
pub(crate) mod image_rows;
mod images;
mod liveness;
mod making;
mod open;
pub(crate) mod recovery;
mod reserve;
mod snapshots;

pub(crate) use self::core::Core;
pub(crate) use self::image_rows::{NewImage, Pulled};
pub(crate) use self::making::PendingLayer;
pub(crate) use self::snapshots::{new_name, now_micros, time as snapshot_time};
pub use collect::{CollectReport, Leftover, StoreStats};
pub use image_defaults::ImageDefaults;
pub use image_rows::ImageInfo;
pub use open::Store;
pub use snapshots::SnapshotInfo;
