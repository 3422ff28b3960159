//! Root file systems from directories and tar archives, as trees of layers.

mod archive;
mod compression;
mod copy;
mod digest;
mod error;
mod layer_archive;
mod layer_attributes;
mod layer_content;
mod layer_owner;
mod layer_report;
mod layer_writer;
mod lower_links;
mod notices;
mod options;
mod part;
mod pax;
mod regions;
mod removal;
mod root_writer;
mod space;
mod tar_archive;
mod way;
mod xattrs;

pub use copy::copy_directory;
pub use error::ImportError;
pub use layer_archive::unpack_layer_from;
pub use layer_report::{LayerLimits, LayerOptions, LayerReport, LowerLink};
pub use lower_links::link_from_lower;
pub use options::{ImportLimits, ImportOptions, ImportReport};
pub(crate) use part::{Placing, Wanted, link_others, unpack_part};
pub use tar_archive::{unpack_tar, unpack_tar_from};
