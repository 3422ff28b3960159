//! Pipelines: steps that fork from each other's snapshots, and are skipped when nothing that they
//! depend on has changed.
//!
//! ```text
//! file ──parse──▶ Pipeline ──plan──▶ Plan ──schedule──▶ one call of StepRunner a step ──▶ record
//! ```
//!
//! This crate knows steps, not VMs: what it needs of the world it asks for through two ports,
//! [`PlanInputs`] and [`StepRunner`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`parse`] | from TOML, JSON or the graph of `hm` to a [`Pipeline`] |
//! | [`schema`] | JSON schema of the file |
//! | [`condition`] | `if` |
//! | [`pipeline`] | [`Pipeline`] and [`Step`], checked and complete |
//! | [`plan`] | [`Plan`]: every step's key, and whether it would run |
//! | [`event`] | what happens during a run |
//! | [`record`] | [`RunStore`](record::RunStore): what is kept of every run |
//! | [`runner`] | [`StepRunner`]: what carries a step out |
//! | [`schedule`] | [`run`](schedule::run): carries a plan out |
#![forbid(unsafe_code)]

pub mod condition;
pub mod event;
mod hm_ir;
pub mod parse;
pub mod pipeline;
pub mod plan;
pub mod record;
pub mod runner;
pub mod schedule;
pub mod schema;
#[cfg(test)]
mod testing;

pub use condition::{Condition, ConditionError};
pub use event::{RunEvent, RunEventSink, SkipReason, StepOutcome, StepResult, Verdict};
pub use parse::{Diagnostic, Diagnostics, Format};
pub use pipeline::{Pipeline, Step, StepId};
pub use plan::{
    CachedEntry, Decision, LostEntry, Plan, PlanError, PlanInputs, PlanOptions, PlannedInject,
    PlannedStep, RunReason,
};
pub use runner::{StepEnd, StepReport, StepRunner, StepTry};
pub use schedule::{RunOutcome, ScheduleOptions};
