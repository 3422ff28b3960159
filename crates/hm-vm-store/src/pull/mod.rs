//! Images of others become images of the store.
//!
//! ```text
//! resolve              manifest and configuration, for one platform
//! known layers         by diff id: held, so that nobody drops them meanwhile
//! the others           three at a time, the largest first: one maker in all processes each, visible as soon as it is
//!                      whole, held by a lease
//! links                of layers that link to files of lower ones; these layers serve this image alone
//! short                an image of very many layers is made one of fewer
//! one transaction      stack, configuration, name; the leases go
//! ```
//!
//! Whatever fails, nothing stays but whole layers that somebody else uses as well: what else there is belongs to the
//! session, and is removed with it.

mod count;
mod enter;
mod image;
mod layers;
mod options;
mod parts;
mod short;

pub use options::PullOptions;
pub(crate) use parts::ImageLayer;
