//! The checks, by subject.

pub(super) mod concurrency;
pub(super) mod defaults;
pub(super) mod drops;
mod errors;
pub(super) mod files;
pub(super) mod inject;
pub(super) mod input;
pub(super) mod life_cycle;
pub(super) mod limits;
pub(super) mod mounts;
pub(super) mod network;
pub(super) mod output;
pub(super) mod outputs;
pub(super) mod patterns;
pub(super) mod private_network;
pub(super) mod processes;
pub(super) mod refusals;
pub(super) mod snapshots;
pub(super) mod stop;
pub(super) mod terminal;
pub(super) mod users;
