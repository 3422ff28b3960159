//! Root file systems from directories and tar archives, as trees of layers.

mod copy;
mod error;
mod options;
mod tar_archive;

pub use copy::copy_directory;
pub use error::ImportError;
pub use options::{ImportLimits, ImportOptions, ImportReport};
pub use tar_archive::{unpack_tar, unpack_tar_from};
