//! The port through which steps are carried out.

use async_trait::async_trait;
use hm_vm_core::Cancellation;

use crate::event::{StepDetail, StepOutcome};
use crate::pipeline::StepId;

/// Carries steps out. Called from many tasks at once, never twice at once for one step.
#[async_trait]
pub trait StepRunner: Send + Sync {
    /// Carries one try of a step out, or finds that its result is known. Everything that it forks from and
    /// needs is over. Returns soon after `cancel` is triggered, with nothing alive.
    async fn run(&self, attempt: StepTry, cancel: Cancellation) -> StepReport;
}

/// One try of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepTry {
    /// The step.
    pub step: StepId,
    /// From 1.
    pub attempt: u32,
    /// It must run whatever the plan says of it: a step that forks from it needs its snapshot, which
    /// is gone.
    pub rebuild: bool,
}

/// What came of a try.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// How it ended.
    pub end: StepEnd,
    /// What is known of it.
    pub detail: StepDetail,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// As the outcome says; never [`StepOutcome::Skipped`].
    Outcome(StepOutcome),
    /// The snapshot to fork from is gone: the step that made it is to be run again, then this one.
    ParentMissing,
}
