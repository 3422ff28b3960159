//! What a run would do: every step's key, and whether it would be skipped.
//!
//! # The rule
//!
//! A step is skipped when its key has a result, made from the result that its parent has now. A
//! step whose parent runs, runs as well: a parent that is made again may be different, whatever its key says.
//! A step without a result of which only skipped steps fork, and that brings no outputs, is not
//! needed.
//!
//! # Forks
//!
//! A step depends on the result of the step that it forks from, and on those of the steps that its services
//! fork from: wherever the rule says *parent*, both count, but for the recorded parent of a result, which is that
//! of the step's own base. What a step merely `needs` has no part in its key nor in the rule.
//!
//! # What is asked
//!
//! Each image, each inject and each set of inputs that decides a key is digested once, all at the same time. Steps
//! that do not belong to the run, and those whose condition does not hold, are not looked at: they
//! have no key in the plan.

mod conditions;
mod decide;
mod digests;
mod error;
mod forks;
mod images;
mod inputs;
mod keys;
mod make;
mod model;
mod order;
mod outputs;
mod patterns;
mod select;
mod sources;
#[cfg(test)]
pub(crate) mod tests;

pub use error::PlanError;
pub use forks::Forks;
pub use images::images;
pub use inputs::{CachedEntry, LostEntry, PlanInputs};
pub use model::{Decision, Plan, PlanOptions, PlannedInject, PlannedStep, RunReason};
