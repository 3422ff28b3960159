//! What isolates VMs, and who keeps their snapshots.
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`] | the option, and what decides where it is not given |
//! | [`auto`] | whether the sandbox works here, remembered |
//! | [`daemon`] | Docker and Podman: opening them, and those that this store has used |
//! | [`keeper`] | the snapshots of one backend, whichever that is |
//! | [`turns`] | whose turn it is at a named cache directory |
//! | [`opened`] | a backend with all that works on it |

mod args;
mod auto;
pub(crate) mod daemon;
mod keeper;
mod opened;
mod turns;

pub(crate) use args::{BackendArgs, BackendChoice};
pub(crate) use auto::forget_that_it_works;
pub(crate) use daemon::wait;
pub(crate) use keeper::Keeper;
pub(crate) use opened::{Looked, Opened};
pub(crate) use turns::CacheTurn;
