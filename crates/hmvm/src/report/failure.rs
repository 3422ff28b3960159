//! What is told of a step that failed.

use hm_pipeline::{StepId, StepOutcome, StepResult};

use super::tally::Facts;
use crate::input::quote::quote;
use crate::output::Style;
use crate::output::human::plural;
use crate::output::sanitize::{bare_line, sanitize, sanitize_path};

/// The lines below the one that says that the step failed: its last output, where its log is, and how to look around
/// in the state that it left. Each ends with a line end.
pub(super) fn details<'a>(
    facts: &Facts,
    step: StepId,
    result: &StepResult,
    tail: impl Iterator<Item = &'a str>,
    style: Style,
) -> String {
    let mut text = String::new();
    let mut line = |content: &str| {
        text.push_str("  ");
        text.push_str(content.trim_end());
        text.push('\n');
    };
    let tail: Vec<&str> = tail.collect();
    if !tail.is_empty() {
        let count = u64::try_from(tail.len()).unwrap_or(u64::MAX);
        let title = format!("its last {}:", plural(count, "line"));
        line(&style.dim(&title));
        for output in tail {
            line(&format!("  {}", bare_line(output)));
        }
    }
    if let StepOutcome::Broken {
        hint: Some(hint), ..
    } = &result.outcome
    {
        line(&format!("{} {}", style.green("hint:"), sanitize(hint)));
    }
    let (run, name) = (facts.run, facts.raw_name(step));
    if let Some(log) = &result.detail.log {
        let shown = sanitize_path(log);
        let command = format!("hmvm logs {run} {}", quote(name));
        line(&format!("log:   {shown} ({})", sanitize(&command)));
    }
    if result.detail.kept.is_some() {
        let name = quote(&format!("{run}/{name}"));
        let command = format!("hmvm shell --failed {name}");
        line(&format!("shell: {}", sanitize(&command)));
    }
    text
}
