//! Under construction.
#![forbid(unsafe_code)]

mod beneath;
pub mod host;
pub mod import;
pub mod inject;

pub use beneath::FileFailure;
