//! What is told at the end of a run.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use hm_pipeline::{StepId, StepOutcome, StepResult, Verdict};

use super::tally::{Facts, Tally};
use super::words;
use crate::output::human::{duration, plural};
use crate::output::{Style, Table};

/// Runs of more steps are not listed whole.
const WHOLE: usize = 30;

/// How many of the failed, and how many of the slowest steps of such a run are listed.
const SOME: usize = 10;

/// Table of the steps, totals and verdict.
pub(super) fn text(
    facts: &Facts,
    tally: &Tally,
    verdict: Verdict,
    took: Duration,
    style: Style,
) -> String {
    let mut steps: Vec<&(StepId, StepResult)> = tally.ended.iter().collect();
    let whole = steps.len() <= WHOLE;
    if !whole {
        let listed = remarkable(&tally.ended);
        steps.retain(|(step, _)| listed.contains(step));
    }
    steps.sort_by_key(|(step, _)| *step);
    let mut text = String::new();
    if !steps.is_empty() {
        let mut table = Table::new(&["STEP", "RESULT", ">TIME"], style);
        for (step, result) in steps {
            table.row(vec![
                facts.name(*step).to_owned(),
                words::cell(result, facts.names()),
                if result.attempt > 0 && result.outcome != StepOutcome::Cached {
                    duration(result.took)
                } else {
                    "-".into()
                },
            ]);
        }
        text.push('\n');
        text.push_str(&table.to_string());
        if !whole {
            let command = format!(
                "(failed and slowest ones; hmvm runs show {} lists all)",
                facts.run
            );
            text.push_str(&style.dim(&command));
            text.push('\n');
        }
    }
    let saved = (!tally.saved.is_zero()).then(|| duration(tally.saved));
    let steps = plural(u64::try_from(tally.ended.len()).unwrap_or(u64::MAX), "step");
    let counts = words::counts(&tally.counts, saved);
    let colon = if counts.is_empty() { "" } else { ": " };
    let sentence = words::verdict(facts, verdict);
    let sentence = match verdict {
        Verdict::Succeeded => style.green(&sentence),
        _ => style.red(&sentence),
    };
    format!(
        "{text}\n{steps}{colon}{counts}, in {}\n{sentence}\n",
        duration(took)
    )
}

/// The first steps that failed, and the slowest ones.
fn remarkable(ended: &[(StepId, StepResult)]) -> BTreeSet<StepId> {
    let failed = ended.iter().filter(|(_, result)| {
        !result.outcome.is_success() && !matches!(result.outcome, StepOutcome::Skipped(_))
    });
    let mut listed: BTreeSet<StepId> = failed.take(SOME).map(|(step, _)| *step).collect();
    let ran = ended
        .iter()
        .filter(|(_, result)| result.attempt > 0 && result.outcome != StepOutcome::Cached);
    let mut ran: Vec<&(StepId, StepResult)> = ran.collect();
    ran.sort_by_key(|(step, result)| (Reverse(result.took), *step));
    listed.extend(ran.iter().take(SOME).map(|(step, _)| *step));
    listed
}
