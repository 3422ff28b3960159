//! Images in and out: what the commands for images and snapshots share.
//!
//! | module | what it holds |
//! |---|---|
//! | [`client`] | how registries are spoken to |
//! | [`place`] | layouts and archives, as users write them |
//! | [`pull`] | pulling several images at once |
//! | [`needed`] | pulling what a command needs and the backend does not have |
//! | [`daemon`] | the same into a daemon |

pub(crate) mod client;
mod daemon;
pub(crate) mod needed;
pub(crate) mod place;
pub(crate) mod pull;
