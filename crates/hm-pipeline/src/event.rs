//! What happens during a run, and how steps and runs end.

use std::path::PathBuf;
use std::time::Duration;

use hm_vm_core::{Phase, PhaseTimes, ProgressState, ResourceUsage, SnapshotId, Stream};

use crate::pipeline::StepId;

/// Something that happens during a run. Those of one step come in order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RunEvent {
    /// The first one.
    RunStarted {
        /// Steps that may run at once.
        parallelism: usize,
        /// How many steps belong to the run.
        steps: usize,
    },
    /// A try of a step begins.
    StepStarted {
        /// The step.
        step: StepId,
        /// 1 for the first try.
        attempt: u32,
    },
    /// A part of a step begins.
    StepPhase {
        /// The step.
        step: StepId,
        /// The part.
        phase: Phase,
    },
    /// How far a part of a step that takes long is: not more than five times a second. Comes
    /// from the step's own task, as output does.
    StepProgress {
        /// The step.
        step: StepId,
        /// The part.
        phase: Phase,
        /// How far it is.
        state: ProgressState,
    },
    /// A line of a step's output, or of what is replayed for it. `secrets` are masked already.
    StepOutput {
        /// The step.
        step: StepId,
        /// Of which stream.
        stream: Stream,
        /// The line, without its end.
        line: String,
    },
    /// A line of a service's output.
    ServiceOutput {
        /// The step.
        step: StepId,
        /// The service's name.
        service: String,
        /// Of which stream.
        stream: Stream,
        /// The line, without its end.
        line: String,
    },
    /// Something that the user should know although the run goes on.
    Notice {
        /// The step that it is about, if it is about one.
        step: Option<StepId>,
        /// What it is.
        text: String,
    },
    /// Results of the run were given to a cache that is shared with other machines.
    Shared {
        /// How many.
        results: u64,
        /// Bytes that were sent for them.
        bytes: u64,
    },
    /// A try failed, and there will be another one.
    StepRetried {
        /// The step.
        step: StepId,
        /// The try that failed, from 1.
        attempt: u32,
        /// How it ended.
        result: Box<StepResult>,
    },
    /// A step is over. Exactly one for each step of the run.
    StepEnded {
        /// The step.
        step: StepId,
        /// How.
        result: Box<StepResult>,
    },
    /// The last one.
    RunEnded {
        /// How the run ended.
        verdict: Verdict,
        /// From the first event to this one.
        took: Duration,
    },
}

/// Receives the events of a run. Output comes from many tasks at once, and a call that takes long holds the
/// step back; all other events come from the scheduler's task, and must not be held up.
pub trait RunEventSink: Send + Sync {
    /// Takes one event.
    fn on_event(&self, event: &RunEvent);
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepOutcome {
    /// Its result was known.
    Cached,
    /// It ran, and exited with 0.
    Succeeded,
    /// It exited with another code.
    Failed {
        /// The code.
        exit_code: i32,
    },
    /// It did not end in its time.
    TimedOut {
        /// The time it had.
        limit: Duration,
    },
    /// It was going on, or was about to, when the run was cancelled.
    Cancelled,
    /// It was not run.
    Skipped(SkipReason),
    /// It could not be run, or something other than its command failed.
    Broken {
        /// What happened to what.
        message: String,
        /// What the user can do.
        hint: Option<String>,
    },
}

impl StepOutcome {
    /// Whether what depends on the step may run.
    pub fn is_success(&self) -> bool {
        matches!(
            self,
            Self::Cached | Self::Succeeded | Self::Skipped(SkipReason::NotNeeded)
        )
    }

    /// The name used in records and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::TimedOut { .. } => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Skipped(_) => "skipped",
            Self::Broken { .. } => "broken",
        }
    }
}

/// Why a step was not run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its `if` does not hold. Steps that need it run; those that fork from it are skipped too.
    Condition,
    /// A step that it forks from or needs did not end well.
    Dependency(StepId),
    /// Another step failed, and the run does not keep going.
    RunFailed,
    /// Only steps that are cached fork from it.
    NotNeeded,
}

/// How a step ended, and what is known of it.
#[derive(Clone, Debug)]
pub struct StepResult {
    /// How it ended.
    pub outcome: StepOutcome,
    /// Whether its failure is none of the run.
    pub allowed: bool,
    /// From the beginning of its last try to its end.
    pub took: Duration,
    /// The last try, from 1; 0 when it was not tried.
    pub attempt: u32,
    /// What the runner knows.
    pub detail: StepDetail,
}

/// What the runner knows of a step that is over.
#[derive(Clone, Debug, Default)]
pub struct StepDetail {
    /// The key that it is cached under.
    pub key: Option<String>,
    /// Its snapshot, as long as the run goes on at least.
    pub snapshot: Option<SnapshotId>,
    /// The state of a failed command.
    pub kept: Option<SnapshotId>,
    /// The file with its output, if it wrote any.
    pub log: Option<PathBuf>,
    /// Where the time went.
    pub phases: PhaseTimes,
    /// What the command used.
    pub usage: Option<ResourceUsage>,
    /// For a cached step: the time that it took when it ran.
    pub saved: Option<Duration>,
    /// For a cached step: bytes that came from a cache shared with other machines; `None` where the result was
    /// here already.
    pub fetched_bytes: Option<u64>,
    /// Files that were brought to the host.
    pub output_files: u64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every step ended well, or its failure is allowed.
    Succeeded,
    /// A step failed; this is the first one that did.
    Failed {
        /// The step.
        step: StepId,
        /// Its exit code; 125 when it was broken.
        exit_code: i32,
    },
    /// A step did not end in its time, or the run did not.
    TimedOut {
        /// The step, if it was one.
        step: Option<StepId>,
    },
    /// The user cancelled.
    Cancelled,
}

impl Verdict {
    /// The name used in records and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::TimedOut { .. } => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}
