//! What a run is given beside its plan, and what it comes to.

use std::num::NonZeroUsize;
use std::time::Duration;

use hm_vm_core::Cancellation;

use crate::event::{StepResult, Verdict};

/// How a plan is carried out.
#[derive(Clone, Debug)]
pub struct ScheduleOptions {
    /// Steps that may run at once. Those that only replay a known result do not count.
    pub parallelism: NonZeroUsize,
    /// Processors that the steps' declared ones may add up to. A step that declares more runs alone.
    pub cpus: u32,
    /// Memory that the steps' declared one may add up to. A step that declares more runs alone.
    pub memory_mib: u64,
    /// Go on after a failure with all that does not depend on the failed step.
    pub keep_going: bool,
    /// Ends the run early. A kill is passed on to the steps.
    pub cancel: Cancellation,
    /// How long the run may take.
    pub timeout: Option<Duration>,
}

impl Default for ScheduleOptions {
    /// One step at a time, with no limit of anything.
    fn default() -> Self {
        Self {
            parallelism: NonZeroUsize::MIN,
            cpus: u32::MAX,
            memory_mib: u64::MAX,
            keep_going: false,
            cancel: Cancellation::new(),
            timeout: None,
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct RunOutcome {
    /// How it ended.
    pub verdict: Verdict,
    /// One for each step of the pipeline, in its order; `None` for those that do not belong to the run.
    /// That of a step whose snapshot had to be made again has the newer snapshot.
    pub results: Vec<Option<StepResult>>,
    /// From the first event to the last one.
    pub took: Duration,
}
