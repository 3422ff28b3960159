//! The state that a failed step of a run left.

use hm_pipeline::record::{RunRecord, RunStore, StepRecord};
use hm_vm::SnapshotId;

use crate::app::App;
use crate::backend::Keeper;
use crate::failure::Problem;
use crate::history::{self, Wanted};
use crate::input::quote::quote;
use crate::output::sanitize::sanitize;

/// A failed step whose files are still there, and what its command had beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailedStep {
    /// Snapshot of the files.
    pub(crate) state: SnapshotId,
    /// Absolute guest directory.
    pub(crate) working_dir: String,
    /// Without secrets.
    pub(crate) env: Vec<(String, String)>,
    /// Root without.
    pub(crate) user: Option<String>,
}

impl FailedStep {
    /// The step that is meant; without a name the newest one whose state is there.
    ///
    /// # Errors
    ///
    /// No such run or step, one that did not fail, or a state that is gone.
    pub(crate) fn find(app: &App, keeper: &Keeper, wanted: &Wanted) -> anyhow::Result<Self> {
        let runs = history::open(app)?;
        if wanted.run.is_none() && wanted.step.is_none() {
            return newest(&runs, keeper);
        }
        let record = history::run(&runs, wanted.run)?;
        let step = match &wanted.step {
            Some(name) => chosen(&record, name)?,
            None => first_failed(&record).ok_or_else(|| nothing_failed(&record))?,
        };
        of(keeper, &record, step)
    }
}

/// The newest step with a state that is there. Where none is, what is said is about the newest failure.
fn newest(runs: &RunStore, keeper: &Keeper) -> anyhow::Result<FailedStep> {
    let mut first_error = None;
    for summary in runs.list()? {
        // Most runs have nothing that failed: their steps are not read.
        if summary.is_over() && summary.counts.failed == 0 {
            continue;
        }
        let Some(record) = runs.load(summary.id)? else {
            continue;
        };
        let Some(step) = first_failed(&record) else {
            continue;
        };
        match of(keeper, &record, step) {
            Ok(found) => return Ok(found),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| {
        Problem::new("no step of the runs on record failed")
            .hint("hmvm shell --from SNAPSHOT opens the state of a step that ended well; hmvm runs show RUN --json has its id")
            .into()
    }))
}

/// The step that decided the run's verdict, if its state was kept, else the first one whose state was, else the first
/// one that failed.
fn first_failed(record: &RunRecord) -> Option<&StepRecord> {
    let deciding = record.summary.verdict_step.as_deref();
    let deciding = deciding.and_then(|name| record.step(name));
    let kept = record.steps.iter().find(|step| step.kept.is_some());
    deciding
        .filter(|step| step.kept.is_some())
        .or(kept)
        .or(deciding)
        .or_else(|| record.steps.iter().find(|step| has_failed(step)))
}

fn chosen<'a>(record: &'a RunRecord, name: &str) -> anyhow::Result<&'a StepRecord> {
    let steps = history::steps(record, name)?;
    let kept = steps.iter().find(|step| step.kept.is_some());
    let failed = || steps.iter().find(|step| has_failed(step));
    let step = kept.or_else(failed).copied();
    step.ok_or_else(|| {
        let snapshot = steps.iter().find_map(|step| step.snapshot.as_deref());
        let problem = Problem::new(format!(
            "step {} of run {} did not fail",
            quote(&sanitize(name)),
            record.summary.id
        ));
        match snapshot {
            Some(id) => problem.hint(format!("hmvm shell --from {id} opens its state")),
            None => problem.hint("hmvm runs show RUN tells how the steps of a run ended"),
        }
        .into()
    })
}

fn has_failed(step: &StepRecord) -> bool {
    matches!(
        step.outcome.as_deref(),
        Some("failed" | "timed_out" | "broken")
    )
}

fn nothing_failed(record: &RunRecord) -> Problem {
    Problem::new(format!("no step of run {} failed", record.summary.id))
        .hint("hmvm runs lists the runs and how they ended")
}

fn of(keeper: &Keeper, record: &RunRecord, step: &StepRecord) -> anyhow::Result<FailedStep> {
    let name = sanitize(&step.name);
    let id = record.summary.id;
    let Some(kept) = &step.kept else {
        let outcome = crate::report::outcome_name(step.outcome.as_deref().unwrap_or("running"));
        return Err(Problem::new(format!(
            "step {name} of run {id} left no state: its outcome is {outcome}"
        ))
        .hint("only a command that ended with an exit code leaves one")
        .into());
    };
    let state = SnapshotId::new(kept);
    if !keeper.may_have(&state) {
        let problem = Problem::new(format!(
            "the state of step {name} of run {id} is not kept by {}",
            keeper.name()
        ));
        return Err(problem
            .hint("--backend takes the backend that the run had")
            .into());
    }
    if !keeper.has(&state)? {
        return Err(
            Problem::new(format!("the state of step {name} of run {id} is gone"))
                .hint("it is kept until the next run of its pipeline has ended; run the step again")
                .into(),
        );
    }
    let surroundings = step.surroundings();
    let (working_dir, env, user) = surroundings.map_or_else(
        || ("/".to_owned(), Vec::new(), None),
        |it| (it.working_dir, it.env.into_iter().collect(), it.user),
    );
    Ok(FailedStep {
        state,
        working_dir,
        env,
        user,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, outcome: &str, kept: Option<&str>) -> StepRecord {
        StepRecord {
            name: name.into(),
            group: name.into(),
            outcome: Some(outcome.into()),
            kept: kept.map(str::to_owned),
            ..StepRecord::default()
        }
    }

    fn record(steps: Vec<StepRecord>, verdict_step: Option<&str>) -> RunRecord {
        let summary = serde_json::json!({
            "id": 7, "pipeline": "p", "identity": "p", "file": "/p", "state": "finished",
            "started": 0, "options": [], "saved_ms": 0, "log_bytes": 0, "digests": [],
            "counts": { "steps": 0, "cached": 0, "succeeded": 0, "failed": 0, "cancelled": 0, "skipped": 0 },
            "verdict_step": verdict_step,
        });
        RunRecord {
            summary: serde_json::from_value(summary).expect("a summary"),
            steps,
        }
    }

    fn first(record: &RunRecord) -> Option<&str> {
        first_failed(record).map(|step| step.name.as_str())
    }

    #[test]
    fn the_step_that_decided_comes_first() {
        let fine = step("a", "succeeded", None);
        let allowed = step("b", "failed", Some("1"));
        let deciding = step("c", "failed", Some("2"));
        let late = step("c", "timed_out", None);
        let all = record(vec![fine.clone(), allowed.clone(), deciding], Some("c"));
        assert_eq!(first(&all), Some("c"));
        // It left nothing to look at.
        assert_eq!(
            first(&record(vec![allowed, late.clone()], Some("c"))),
            Some("b")
        );
        assert_eq!(
            first(&record(vec![fine.clone(), late], Some("c"))),
            Some("c")
        );
        assert_eq!(first(&record(vec![fine], None)), None);
    }

    #[test]
    fn a_step_that_did_not_fail_is_refused() {
        let fine = StepRecord {
            snapshot: Some("abc".into()),
            ..step("a", "succeeded", None)
        };
        let record = record(vec![fine, step("b", "failed", None)], None);
        assert!(chosen(&record, "b").is_ok());
        let error = chosen(&record, "a").expect_err("it did not fail");
        assert_eq!(error.to_string(), "step a of run 7 did not fail");
        let error = chosen(&record, "c").expect_err("no such step");
        assert_eq!(error.to_string(), "run 7 has no step \"c\"");
    }
}
