//! Snapshots: what they are made by, their names, removal, depth.
//!
//! A snapshot is an image that `commit` makes of a container at rest. It says about containers what the image said from which its VM
//! was made, so that `docker run` of it does the same. It exists while it has a tag `s-…` of its owner. Removing it takes that tag;
//! the image goes when nothing needs it any more: no other tag, no container, no image made from it. What containers
//! use still gets a tag `g-…` ("gone") meanwhile: a daemon does not take the last tag from an image in use.

mod commit;
mod config;
mod flat;
mod list;
mod remove;

pub(crate) use commit::{Kept, WorkingImage, commit, full_id, keep_working, patient};
pub(crate) use config::original;
pub(crate) use flat::usable;
pub use list::SnapshotFacts;
pub(crate) use remove::{Removed, release, remove, remove_name, remove_unnamed};
