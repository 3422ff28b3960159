//! Root file systems from directories and tar archives, as trees of layers.

mod archive;
mod compression;
mod copy;
mod digest;
mod error;
mod notices;
mod options;
mod pax;
mod removal;
mod root_writer;
mod tar_archive;
mod xattrs;

pub use copy::copy_directory;
pub use error::ImportError;
pub use options::{ImportLimits, ImportOptions, ImportReport};
pub use tar_archive::{unpack_tar, unpack_tar_from};
