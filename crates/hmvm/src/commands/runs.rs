use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use hm_pipeline::record::{
    PrunedRun, Retention, RunRecord, RunState, RunStore, RunSummary, StepRecord,
};
use serde_json::{Value, json};

use crate::app::App;
use crate::backend::daemon;
use crate::failure::Problem;
use crate::history;
use crate::input::parse_duration;
use crate::output::human::{self, plural};
use crate::output::sanitize::sanitize;
use crate::output::{Table, json};
use crate::report::outcome_name;

/// List the runs of pipelines, newest first; show and remove them
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  hmvm runs --limit 5
  hmvm runs show 7
  hmvm runs --json | jq -r '.[0].verdict'"
)]
pub(crate) struct Runs {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(Show),
    Rm(Rm),
    Prune(Prune),
}

#[derive(Args, Debug)]
struct List {
    /// List at most so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Show a run with its steps
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm runs show 7")]
struct Show {
    /// Number of the run [default: the newest]
    #[arg(value_name = "RUN")]
    run: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Remove runs with their logs and the states of their failures
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm runs rm 5 6")]
struct Rm {
    /// Numbers of the runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<u64>,
}

/// Remove the runs that need not be kept, as every run does at its end
///
/// The newest run, and the newest finished one of every pipeline, stay in any case.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm runs prune --keep 10")]
struct Prune {
    /// Keep so many of the newest [default: 100]
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Remove those that are older, such as 7d [default: 30d]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    older_than: Option<Duration>,
}

impl Runs {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<()> {
        match &self.command {
            None => self.list.run(app),
            Some(Command::Show(show)) => show.run(app),
            Some(Command::Rm(rm)) => rm.run(app),
            Some(Command::Prune(prune)) => prune.run(app),
        }
    }
}

impl List {
    fn run(&self, app: &App) -> anyhow::Result<()> {
        let mut runs = history::open(app)?.list()?;
        runs.truncate(self.limit);
        if self.json {
            let list: Vec<Value> = runs.iter().map(summary_json).collect();
            return json::document(&list);
        }
        if runs.is_empty() {
            app.ui.say("hmvm: no runs");
            return Ok(());
        }
        let now = SystemTime::now();
        let titles = [">RUN", "PIPELINE", "WHEN", "VERDICT", "STEPS", ">TIME"];
        let mut table = Table::new(&titles, app.ui.out_style());
        for run in &runs {
            table.row(vec![
                run.id.to_string(),
                sanitize(&run.pipeline).into_owned(),
                human::ago(now, time(run.started)),
                verdict(run),
                steps(run),
                run.took().map_or_else(|| "-".into(), human::duration),
            ]);
        }
        app.ui.print(table)
    }
}

impl Show {
    fn run(&self, app: &App) -> anyhow::Result<()> {
        let runs = history::open(app)?;
        let record = history::run(&runs, self.run)?;
        if self.json {
            return json::document(&record_json(&runs, &record));
        }
        let summary = &record.summary;
        let style = app.ui.out_style();
        let saved = Duration::from_millis(summary.saved_ms);
        let mut facts = vec![
            ("run", summary.id.to_string()),
            ("pipeline", sanitize(&summary.pipeline).into_owned()),
            ("file", sanitize(&summary.file).into_owned()),
            ("verdict", verdict(summary)),
            ("started", human::timestamp(time(summary.started))),
        ];
        if let Some(took) = summary.took() {
            facts.push(("took", human::duration(took)));
        }
        if !saved.is_zero() {
            facts.push(("saved", human::duration(saved)));
        }
        if !summary.options.is_empty() {
            facts.push(("options", sanitize(&summary.options.join(" ")).into_owned()));
        }
        facts.push(("logs", human::size(summary.log_bytes)));
        for (name, value) in facts {
            app.ui.data(format_args!(
                "{}  {value}",
                style.bold(&format!("{name:8}"))
            ))?;
        }
        app.ui.data("")?;
        let mut table = Table::new(&["STEP", "RESULT", ">TIME", "WHY"], style);
        for step in &record.steps {
            table.row(vec![
                sanitize(&step.name).into_owned(),
                result(step),
                step.took_ms.map_or_else(
                    || "-".into(),
                    |took| human::duration(Duration::from_millis(took)),
                ),
                sanitize(step.message.as_deref().unwrap_or(&step.reason)).into_owned(),
            ]);
        }
        app.ui.print(table)
    }
}

impl Rm {
    fn run(&self, app: &App) -> anyhow::Result<()> {
        let runs = history::open(app)?;
        // All are looked up before anything is removed.
        for id in &self.runs {
            let summary = runs.summary(*id)?.ok_or_else(|| history::not_found(*id))?;
            if summary.state == RunState::Running {
                return Err(Problem::new(format!("run {id} goes on"))
                    .hint("Ctrl-C in its terminal ends it")
                    .into());
            }
        }
        let mut removed = Vec::new();
        settle(app, &runs, &self.runs)?;
        for id in &self.runs {
            removed.extend(runs.remove(*id)?);
        }
        finish(app, &removed)
    }
}

impl Prune {
    fn run(&self, app: &App) -> anyhow::Result<()> {
        let usual = Retention::default();
        let retention = Retention {
            max_runs: self.keep.unwrap_or(usual.max_runs),
            max_age: self.older_than.unwrap_or(usual.max_age),
            ..usual
        };
        let removed = history::open(app)?.prune(&retention)?;
        finish(app, &removed)
    }
}

/// Removes what these runs left, should they have been killed.
fn settle(app: &App, runs: &RunStore, ids: &[u64]) -> anyhow::Result<()> {
    for (id, snapshots) in runs.interrupted()? {
        if !ids.contains(&id) {
            continue;
        }
        daemon::remove_everywhere(app, &snapshots)?;
        runs.mark_interrupted(id)?;
    }
    Ok(())
}

/// Removes the states that the removed runs had kept, and tells how many runs they were.
fn finish(app: &App, removed: &[PrunedRun]) -> anyhow::Result<()> {
    daemon::remove_everywhere(app, removed.iter().flat_map(|run| &run.kept))?;
    let count = u64::try_from(removed.len()).unwrap_or(u64::MAX);
    app.ui
        .say(format_args!("hmvm: removed {}", plural(count, "run")));
    Ok(())
}

/// A time of the record.
fn time(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unix_ms)
}

/// How a run ended, or that it did not.
fn verdict(run: &RunSummary) -> String {
    let verdict = match run.state {
        RunState::Running => return "running".into(),
        RunState::Interrupted => return "interrupted".into(),
        RunState::Finished => outcome_name(run.verdict.as_deref().unwrap_or("unknown")),
    };
    match &run.verdict_step {
        Some(step) => format!("{verdict}: {}", sanitize(step)),
        None => verdict,
    }
}

/// `14, 11 cached`.
fn steps(run: &RunSummary) -> String {
    match run.counts.cached {
        0 => run.counts.steps.to_string(),
        cached => format!("{}, {cached} cached", run.counts.steps),
    }
}

/// How a step ended, in a few words.
fn result(step: &StepRecord) -> String {
    let Some(outcome) = step.outcome.as_deref() else {
        return "-".into();
    };
    let mut text = outcome_name(outcome);
    match (outcome, step.exit_code, step.saved_ms) {
        ("failed", Some(code), _) => text.push_str(&format!(" with exit code {code}")),
        ("cached", _, Some(saved)) => {
            let saved = human::duration(Duration::from_millis(saved));
            text.push_str(&format!(", saved {saved}"));
        }
        _ => {}
    }
    if let Some(bytes) = step.fetched_bytes {
        text.push_str(&format!(", from the shared cache ({})", human::size(bytes)));
    }
    if step.allowed {
        text.push_str(" (allowed)");
    }
    text
}

fn summary_json(run: &RunSummary) -> Value {
    json!({
        "run": run.id,
        "pipeline": run.pipeline,
        "file": run.file,
        "state": run.state,
        "verdict": run.verdict,
        "step": run.verdict_step,
        "exit_code": run.exit_code,
        "started": json::time(time(run.started)),
        "ended": run.ended.map(|ended| json::time(time(ended))),
        "took_ms": run.took().map(json::milliseconds),
        "saved_ms": run.saved_ms,
        "counts": run.counts,
        "options": run.options,
        "log_bytes": run.log_bytes,
    })
}

fn record_json(runs: &RunStore, record: &RunRecord) -> Value {
    let steps = record.steps.iter().map(|step| {
        let log = runs.log_path(record.summary.id, step);
        json!({
            "step": step.name,
            "outcome": step.outcome,
            "exit_code": step.exit_code,
            "message": step.message,
            "reason": step.reason,
            "allowed": step.allowed,
            "attempt": step.attempt,
            "started": step.started.map(|started| json::time(time(started))),
            "took_ms": step.took_ms,
            "saved_ms": step.saved_ms,
            "fetched_bytes": step.fetched_bytes,
            "key": step.key,
            "snapshot": step.snapshot,
            "kept": step.kept,
            "log": log.map(|log| log.to_string_lossy().into_owned()),
        })
    });
    let steps: Vec<Value> = steps.collect();
    let mut object = summary_json(&record.summary);
    object["steps"] = Value::Array(steps);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_in_words() {
        let mut step = StepRecord::default();
        assert_eq!(result(&step), "-");
        step.outcome = Some("timed_out".into());
        step.allowed = true;
        assert_eq!(result(&step), "timed out (allowed)");
        let step = StepRecord {
            outcome: Some("failed".into()),
            exit_code: Some(2),
            ..StepRecord::default()
        };
        assert_eq!(result(&step), "failed with exit code 2");
        let step = StepRecord {
            outcome: Some("cached".into()),
            saved_ms: Some(2500),
            ..StepRecord::default()
        };
        assert_eq!(result(&step), "cached, saved 2.5 s");
    }
}
