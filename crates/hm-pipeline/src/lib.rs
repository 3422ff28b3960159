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
//! | [`graph`] | pictures of a plan |
//! | [`record`] | [`RunStore`](record::RunStore): what is kept of every run |
//! | [`runner`] | [`StepRunner`]: what carries a step out |
//! | [`schedule`] | [`run`](schedule::run): carries a plan out |
//!
//! # Example
//!
//! A runner that carries nothing out, but says what it would:
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use hm_pipeline::event::StepDetail;
//! use hm_pipeline::plan::{Plan, PlanInputs, PlanOptions};
//! use hm_pipeline::{
//!     Format, RunEvent, RunEventSink, ScheduleOptions, StepEnd, StepOutcome, StepReport, StepRunner, StepTry,
//!     Verdict, parse, schedule,
//! };
//! use hm_vm_core::Cancellation;
//! # use anyhow::Result;
//! # use hm_pipeline::{CachedEntry, LostEntry};
//! # use hm_vm_core::InjectSource;
//! # /// A world in which nothing is cached.
//! # struct Nothing;
//! # #[async_trait]
//! # impl PlanInputs for Nothing {
//! #     async fn image_digest(&self, _: &str) -> Result<Option<String>> { Ok(None) }
//! #     async fn inject_digest(&self, _: &InjectSource) -> Result<Option<String>> { Ok(None) }
//! #     async fn entries(&self, keys: &[String]) -> Result<Vec<Option<CachedEntry>>> {
//! #         Ok(vec![None; keys.len()])
//! #     }
//! #     async fn lost(&self, _: &str) -> Result<Option<LostEntry>> { Ok(None) }
//! #     async fn changed_paths(&self) -> Result<Option<Vec<String>>> { Ok(None) }
//! #     fn variable(&self, _: &str) -> Option<String> { None }
//! #     fn backend(&self) -> &str { "none" }
//! # }
//!
//! struct Talk(Arc<Plan>);
//!
//! #[async_trait]
//! impl StepRunner for Talk {
//!     async fn run(&self, attempt: StepTry, _cancel: Cancellation) -> StepReport {
//!         println!("$ {}", self.0.pipeline.step(attempt.step).run);
//!         StepReport {
//!             end: StepEnd::Outcome(StepOutcome::Succeeded),
//!             detail: StepDetail::default(),
//!         }
//!     }
//! }
//!
//! struct Ends;
//!
//! impl RunEventSink for Ends {
//!     fn on_event(&self, event: &RunEvent) {
//!         if let RunEvent::StepEnded { step, result } = event {
//!             println!("step {step} {}", result.outcome.name());
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let text = r#"
//! [steps.build]
//! run = "make"
//!
//! [steps.test]
//! from = "build"
//! run = "make check"
//! "#;
//! let pipeline = parse::read(text, Format::Toml, Path::new("/project"))?;
//! let plan = Arc::new(Plan::make(pipeline, &Nothing, &PlanOptions::default()).await?);
//! let runner = Arc::new(Talk(Arc::clone(&plan)));
//! let outcome = schedule::run(plan, runner, ScheduleOptions::default(), Arc::new(Ends)).await;
//! assert_eq!(outcome.verdict, Verdict::Succeeded);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod condition;
pub mod configuration;
pub mod event;
pub mod graph;
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
mod words;

pub use condition::{Condition, ConditionError};
pub use configuration::{Configuration, RemoteCacheMode, RemoteCacheRule};
pub use event::{RunEvent, RunEventSink, SkipReason, StepOutcome, StepResult, Verdict};
pub use parse::{Diagnostic, Diagnostics, Format};
pub use pipeline::{Pipeline, Step, StepId};
pub use plan::{
    CachedEntry, Decision, LostEntry, Plan, PlanError, PlanInputs, PlanOptions, PlannedInject,
    PlannedStep, RunReason,
};
pub use runner::{StepEnd, StepReport, StepRunner, StepTry};
pub use schedule::{RunOutcome, ScheduleOptions};
