//! Images of others become images of the store.

mod faults;
mod images;
mod names;
mod places;
mod support;

pub(crate) use support::kill_me;
