//! What happens behind the caller's back: syncing, removal, measuring, flattening.
//!
//! One thread for each open store, started with its first job. It takes jobs in this order: what
//! is to be removed, what is to be made durable, measured, flattened; last, the log is moved into
//! the database. All jobs are found by looking at the rows, so that nothing is lost when the
//! process ends before its turn: a later session does it.

mod durable;
pub(crate) mod flatten;
mod queue;
mod reap;
mod sizes;
mod worker;

pub(crate) use queue::{Background, Job};
pub(crate) use reap::remove_trash;
