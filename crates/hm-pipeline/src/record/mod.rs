//! What is kept of every run.
//!
//! # On disk
//!
//! ```text
//! runs/7/            the run of this number
//!   run.json         line 1: what the run was and how it ended; line 2: its steps
//!   N.log            output of the step at place N of the pipeline
//!   lock             held as long as the run lives; gone when nothing of it is left to clean up
//!   ephemeral        snapshots to remove should the run die: `+` or `-` and the id as JSON, in lines
//! runs/manifests/    lists of injected files, named after the hash of their digest
//! ```
//!
//! Two lines, so that a list of runs need not read all their steps.
//!
//! # Life of a run
//!
//! ```text
//! begin ─▶ running ── finish ─────────▶ finished
//!             └─ the process dies ─▶ its lock is free ── mark_interrupted ─▶ interrupted
//! ```
//!
//! A run is made beside its place, with its lock held and its file written, and then renamed: whoever
//! sees it sees it whole, and a number belongs to one run however many begin at once. `run.json` is replaced
//! by a rename. Nothing is synced: a crash of the machine may cost the newest records, not older ones.
//!
//! # Compatibility
//!
//! The first line carries a version. A run of a newer one is left alone: [`RunStore::load`] refuses it, lists leave it
//! out with a warning. What cannot be read at all is left out as well, and goes when it is old.

mod begin;
mod build;
mod compare;
mod ephemeral;
mod file;
mod files;
mod lock;
mod manifests;
mod model;
mod prune;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use begin::RunHeader;
pub use compare::{FileChanges, changed_files, compare};
pub use model::{Counts, InjectRecord, RunRecord, RunState, RunSummary, StepRecord, Surroundings};
pub use prune::{PrunedRun, Retention};
pub use store::RunStore;
pub use writer::RunWriter;
