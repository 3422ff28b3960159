//! The words for what becomes of steps and runs.

use hm_pipeline::{RunReason, SkipReason, StepId, StepOutcome, StepResult, Verdict};

use super::tally::{Counts, Facts};
use crate::output::human::{duration, plural, size};
use crate::output::sanitize::sanitize;

/// Why a step runs, in short. `names` are those of the pipeline's steps.
pub(crate) fn run_reason(reason: &RunReason, names: &[String]) -> String {
    let name = |step: &StepId| names.get(step.0).map_or("?", String::as_str);
    match reason {
        RunReason::NoEntry => "not cached yet".into(),
        RunReason::Lost(lost) => format!("no longer cached: {}", sanitize(&lost.by)),
        RunReason::Expired { age, ttl } => format!(
            "its result is {} old, more than {}",
            duration(*age),
            duration(*ttl)
        ),
        RunReason::ParentRuns(step) => format!("{} runs", name(step)),
        RunReason::ParentRemade(step) => format!("{} was made again", name(step)),
        RunReason::CacheOff => "its cache is off".into(),
        RunReason::ParentUncached(step) => format!("{} is not cached", name(step)),
        RunReason::NoDigest => "its content cannot be told".into(),
        RunReason::Asked => "as asked".into(),
        _ => "not cached".into(),
    }
}

/// Why a step was not run.
pub(crate) fn skip_reason(reason: &SkipReason, names: &[String]) -> String {
    match reason {
        SkipReason::Condition => "its condition does not hold".into(),
        SkipReason::Dependency(step) => {
            let name = names.get(step.0).map_or("?", String::as_str);
            format!("{name} did not end well")
        }
        SkipReason::RunFailed => "another step failed".into(),
        SkipReason::NotNeeded => "all that forks from it is cached".into(),
        _ => "not run".into(),
    }
}

/// The name of an outcome, as records have it, for people: `timed out`.
pub(crate) fn outcome_name(name: &str) -> String {
    sanitize(&name.replace('_', " ")).into_owned()
}

/// How a step ended, with its time.
pub(super) fn ending(result: &StepResult, names: &[String]) -> String {
    let took = duration(result.took);
    let mut text = match &result.outcome {
        StepOutcome::Cached => cached(result),
        StepOutcome::Succeeded => format!("ran in {took}"),
        StepOutcome::Failed { exit_code } => {
            format!("failed with exit code {exit_code} after {took}")
        }
        StepOutcome::TimedOut { limit } => format!("timed out after {}", duration(*limit)),
        StepOutcome::Cancelled => "cancelled".into(),
        StepOutcome::Skipped(reason) => format!("skipped: {}", skip_reason(reason, names)),
        StepOutcome::Broken { message, .. } => format!("could not be run: {}", sanitize(message)),
        _ => "ended".into(),
    };
    if result.detail.output_files > 0 {
        text.push_str(", ");
        text.push_str(&plural(result.detail.output_files, "output"));
    }
    if result.attempt > 1 {
        text.push_str(&format!(", attempt {}", result.attempt));
    }
    if result.allowed && !result.outcome.is_success() {
        text.push_str(" (allowed)");
    }
    text
}

fn cached(result: &StepResult) -> String {
    let mut text = "cached".to_owned();
    if let Some(saved) = result.detail.saved {
        text.push_str(&format!(", saved {}", duration(saved)));
    }
    if let Some(bytes) = result.detail.fetched_bytes {
        text.push_str(&format!(", from the shared cache ({})", size(bytes)));
    }
    text
}

/// How a step ended, as a cell of a table that has its time in another one.
pub(super) fn cell(result: &StepResult, names: &[String]) -> String {
    match &result.outcome {
        StepOutcome::Succeeded => "ran".into(),
        StepOutcome::Failed { exit_code } => format!("failed with exit code {exit_code}"),
        StepOutcome::TimedOut { .. } => "timed out".into(),
        StepOutcome::Broken { .. } => "could not be run".into(),
        _ => ending(result, names),
    }
}

/// `3 ran, 11 cached, 1 failed`: what is not zero.
pub(super) fn counts(counts: &Counts, saved: Option<String>) -> String {
    let saved = saved.map_or_else(String::new, |saved| format!(" (saved {saved})"));
    let parts = [
        (counts.succeeded, "ran", ""),
        (counts.cached, "cached", saved.as_str()),
        (counts.failed, "failed", ""),
        (counts.timed_out, "timed out", ""),
        (counts.broken, "could not be run", ""),
        (counts.skipped, "skipped", ""),
        (counts.cancelled, "cancelled", ""),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _, _)| *count > 0)
        .map(|(count, word, more)| format!("{count} {word}{more}"))
        .collect();
    parts.join(", ")
}

/// How the run ended.
pub(super) fn verdict(facts: &Facts, verdict: Verdict) -> String {
    let run = format!("run {} of {}", facts.run, facts.pipeline());
    match verdict {
        Verdict::Succeeded => format!("{run} succeeded"),
        Verdict::Failed { step, exit_code } => {
            let name = facts.name(step);
            format!("{run} failed: {name} ended with exit code {exit_code}")
        }
        Verdict::TimedOut { step: Some(step) } => {
            format!("{run} timed out in {}", facts.name(step))
        }
        Verdict::TimedOut { step: None } => format!("{run} timed out"),
        Verdict::Cancelled => format!("{run} was cancelled"),
    }
}
