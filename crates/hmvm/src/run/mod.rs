//! Carrying a pipeline out: what `hmvm run` and `hmvm plan` share.
//!
//! ```text
//! file      find and read the pipeline file
//! inputs    what the planner asks: digests, the cache, what git says has changed
//! session   one run from its plan to its record
//! runner    one step, on the engine       preparation   what only a step that really runs needs:
//! action    a step as the engine takes it               locks of caches, secrets, services
//! ```

mod action;
mod changes;
mod file;
mod held_end;
mod inputs;
mod keys;
mod manifests;
mod outputs;
mod preparation;
mod runner;
mod secrets;
mod services;
mod session;
mod sink;
mod verify;

pub(crate) use file::{FileArgs, Loaded};
pub(crate) use session::{PlanSettings, RunSettings, Session, run_store};
pub(crate) use verify::{Verification, VerifyOptions};
