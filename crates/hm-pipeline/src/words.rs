//! Decisions and outcomes in words, for records and pictures.

use std::time::Duration;

use crate::event::{SkipReason, StepOutcome};
use crate::plan::{Decision, Plan, RunReason};

/// What the plan made of a step.
pub(crate) fn decision(plan: &Plan, decision: &Decision) -> String {
    match decision {
        Decision::Hit(entry) if entry.elsewhere => "its result is in the shared cache".into(),
        Decision::Hit(_) => "its result is known".into(),
        Decision::Run(reason) => run(plan, reason),
        Decision::Skip(reason) => skip(plan, reason),
    }
}

fn run(plan: &Plan, reason: &RunReason) -> String {
    let name = |id| &plan.pipeline.step(id).name;
    match reason {
        RunReason::NoEntry => "it has no result yet".into(),
        RunReason::Lost(lost) => format!("its result was removed by {}", lost.by),
        RunReason::Expired { age, ttl } => {
            format!(
                "its result is {} old, and may be {}",
                rough(*age),
                rough(*ttl)
            )
        }
        RunReason::ParentRuns(id) => format!("{} runs", name(*id)),
        RunReason::ParentRemade(id) => format!("{} was made again since", name(*id)),
        RunReason::CacheOff => "it is not cached".into(),
        RunReason::ParentUncached(id) => format!("{} is not cached", name(*id)),
        RunReason::NoDigest => "the backend cannot tell what it depends on".into(),
        RunReason::Asked => "the user asked for it".into(),
    }
}

fn skip(plan: &Plan, reason: &SkipReason) -> String {
    match reason {
        SkipReason::Condition => "its condition does not hold".into(),
        SkipReason::Dependency(id) => {
            format!("{} did not end well", plan.pipeline.step(*id).name)
        }
        SkipReason::RunFailed => "the run had failed".into(),
        SkipReason::NotNeeded => "only cached steps fork from it".into(),
    }
}

/// What an outcome's name does not say.
pub(crate) fn outcome(plan: &Plan, outcome: &StepOutcome) -> Option<String> {
    match outcome {
        StepOutcome::TimedOut { limit } => Some(format!("it did not end within {}", rough(*limit))),
        StepOutcome::Skipped(reason) => Some(skip(plan, reason)),
        StepOutcome::Broken { message, .. } => Some(message.clone()),
        StepOutcome::Cached
        | StepOutcome::Succeeded
        | StepOutcome::Failed { .. }
        | StepOutcome::Cancelled => None,
    }
}

/// A duration as one speaks of it.
pub(crate) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
