//! The rules of [`hm_vm_core::backend`] as checks that any backend can be put to.
//!
//! The author of a backend implements [`Harness`], which makes backends on fresh roots, and writes
//! in a test file of their own crate:
//!
//! ```text
//! async fn harness() -> Result<MyHarness, Skip> { … }
//!
//! hm_vm_testkit::conformance_tests!(harness);
//! ```
//!
//! That makes one test per check. Each gets a harness of its own. At its end all its snapshots are
//! removed, and [`Harness::leftovers`] must become empty.
//!
//! Checks are chosen by the [`Capabilities`](hm_vm_core::Capabilities) that the backend declares.
//! What it does not declare, it must refuse, and that is checked as well. A check that does not
//! apply, or cannot run here, says so on standard error.

mod check;
mod checks;
mod context;
mod guest;
mod harness;
mod host;
mod rules;
mod run;

pub use check::{CHECKS, Check};
pub use context::Context;
pub use harness::{Harness, ImageConfiguration, Scale, Shell};
pub use rules::{RULES, Rule};
pub use run::{Outcome, Report, run_all, run_check, run_test};
