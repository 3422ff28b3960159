//! Images in one file: archives of layouts, and what `docker save` and `podman save` write.
//!
//! An archive is never unpacked. One pass over its headers notes where each member lies; parts are read at their
//! offsets from then on, by several threads at once. Of two members with one name the last one counts, as for
//! whoever unpacks the archive; a link counts as the member that it names, and leads nowhere else.

mod docker;
mod headers;
mod open;
mod scan;
mod unpacked;
mod writer;

pub(crate) use open::open_archive;
pub use open::{LocalOptions, open_local, open_local_with};
pub use scan::Members;
pub use writer::ArchiveWriter;
