//! Runs and steps on record, as a person names them.

use std::path::PathBuf;

use anyhow::Context as _;
use hm_pipeline::record::{RunRecord, RunStore, StepRecord};

use crate::app::App;
use crate::failure::Problem;
use crate::output::sanitize::{sanitize, sanitize_path};

/// How many names an error lists.
const CANDIDATES: usize = 10;

/// The record of runs.
///
/// # Errors
///
/// There is no place for the store, or it cannot be opened.
pub(crate) fn open(app: &App) -> anyhow::Result<RunStore> {
    let directory = app.store_root()?.join("runs");
    RunStore::open(&directory).with_context(|| {
        let shown = sanitize_path(&directory);
        format!("cannot open the record of runs in {shown}")
    })
}

/// Which run and step are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The newest one, without.
    pub(crate) run: Option<u64>,
    /// All, without.
    pub(crate) step: Option<String>,
}

impl Wanted {
    /// Reads `RUN`, `STEP`, or `RUN/STEP`. What is not a number is the name of a step.
    pub(crate) fn parse(text: &str) -> Self {
        let step = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let number = |text: &str| text.parse::<u64>().ok();
        if let Some((run, rest)) = text.split_once('/')
            && let Some(run) = number(run)
        {
            return Self {
                run: Some(run),
                step: step(rest),
            };
        }
        match number(text) {
            Some(run) => Self {
                run: Some(run),
                step: None,
            },
            None => Self {
                run: None,
                step: step(text),
            },
        }
    }
}

/// The run of this number, or the newest one.
///
/// # Errors
///
/// No such run, or none at all.
pub(crate) fn run(runs: &RunStore, id: Option<u64>) -> anyhow::Result<RunRecord> {
    let newest = || Ok::<_, anyhow::Error>(runs.list()?.first().map(|summary| summary.id));
    let id = match id {
        Some(id) => id,
        None => newest()?.ok_or_else(|| {
            Problem::new("there are no runs yet")
                .hint("hmvm run runs the pipeline of this directory")
        })?,
    };
    runs.load(id)?.ok_or_else(|| not_found(id).into())
}

/// That there is no such run.
pub(crate) fn not_found(id: u64) -> Problem {
    Problem::new(format!("run {id} not found")).hint("hmvm runs lists the runs")
}

/// The step of this name; of a matrix, all of its steps.
///
/// # Errors
///
/// No such step.
pub(crate) fn steps<'a>(record: &'a RunRecord, name: &str) -> anyhow::Result<Vec<&'a StepRecord>> {
    let exact: Vec<&StepRecord> = record.step(name).into_iter().collect();
    let found = if exact.is_empty() {
        record
            .steps
            .iter()
            .filter(|step| step.group == name)
            .collect()
    } else {
        exact
    };
    if !found.is_empty() {
        return Ok(found);
    }
    let names = record.steps.iter().take(CANDIDATES);
    let mut names: Vec<String> = names
        .map(|step| sanitize(&step.name).into_owned())
        .collect();
    if record.steps.len() > CANDIDATES {
        names.push(format!("and {} more", record.steps.len() - CANDIDATES));
    }
    let message = format!("run {} has no step {name:?}", record.summary.id);
    Err(Problem::new(message)
        .hint(format!("its steps are: {}", names.join(", ")))
        .into())
}

/// The file with a step's output. It need not exist.
pub(crate) fn log_path(runs: &RunStore, record: &RunRecord, step: &StepRecord) -> PathBuf {
    let id = record.summary.id;
    // A run that goes on has not put its logs on record.
    runs.log_path(id, step)
        .unwrap_or_else(|| runs.run_directory(id).join(format!("{}.log", step.place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_or_a_step_or_both() {
        let wanted = |run, step: Option<&str>| Wanted {
            run,
            step: step.map(str::to_owned),
        };
        assert_eq!(Wanted::parse(""), wanted(None, None));
        assert_eq!(Wanted::parse("7"), wanted(Some(7), None));
        assert_eq!(Wanted::parse("7/"), wanted(Some(7), None));
        assert_eq!(Wanted::parse("7/a/b"), wanted(Some(7), Some("a/b")));
        assert_eq!(
            Wanted::parse("test[os=a/b]"),
            wanted(None, Some("test[os=a/b]"))
        );
    }
}
