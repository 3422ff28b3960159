//! `hmvm logs`: options, and which logs are shown. The files beside this one read and show them.

mod follow;
mod lines;
mod printer;
mod source;

use std::time::SystemTime;

use clap::Args;
use hm_pipeline::record::{RunRecord, RunState, RunStore, StepRecord};
use hm_vm::{Cancellation, Stream};

use crate::app::App;
use crate::failure::Problem;
use crate::history::{self, Wanted};
use crate::output::gate::Gate;
use crate::output::sanitize::sanitize;

use printer::{Form, Origin};
use source::Source;

/// Show what the steps of a run wrote
///
/// The output of one step comes as it was, byte for byte: standard output on standard output, standard error on standard
/// error. That of several comes step by step, each line with the name of its step before it. On a terminal, control
/// characters are shown instead of obeyed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm logs                      # all of the newest run
  hmvm logs 7 test > test.log    # one step of run 7
  hmvm logs --follow build       # the newest run's step build, as it goes on
  hmvm logs 7 --json --tail 5")]
pub(crate) struct Logs {
    /// Number of the run [default: the newest]
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// The step; the name of a matrix stands for all of its steps [default: all]
    #[arg(value_name = "STEP")]
    step: Option<String>,
    /// Show what comes, until the run is over
    #[arg(short, long)]
    follow: bool,
    /// Put the time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Show standard output alone
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Show standard error alone
    #[arg(long)]
    stderr: bool,
    /// Show the last lines of each step
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,
    /// Print one object a line
    #[arg(long, conflicts_with = "timestamps")]
    json: bool,
}

impl Logs {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<()> {
        let runs = history::open(app)?;
        let wanted = self.wanted()?;
        let record = history::run(&runs, wanted.run)?;
        let steps = match &wanted.step {
            Some(name) => history::steps(&record, name)?,
            None => record.steps.iter().collect(),
        };
        let one_alone = wanted.step.is_some() && steps.len() == 1;
        let mut sources = self.sources(app, &runs, &record, &steps, one_alone);
        let only = match (self.stdout, self.stderr) {
            (true, _) => Some(Stream::Stdout),
            (_, true) => Some(Stream::Stderr),
            _ => None,
        };
        let form = Form::here(self.json, self.timestamps, only);
        let gate = Gate::new(Cancellation::new(), None);
        let is_alive = record.summary.state == RunState::Running;
        if !self.follow {
            return follow::show(app, &mut sources, &form, &gate, is_alive);
        }
        let id = record.summary.id;
        follow::follow(&mut sources, &form, &gate, &|| is_running(&runs, id))
    }

    fn wanted(&self) -> anyhow::Result<Wanted> {
        let Some(first) = self.run.as_deref() else {
            return Ok(Wanted::default());
        };
        let wanted = Wanted::parse(first);
        match (&self.step, &wanted) {
            (None, _) => Ok(wanted),
            (
                Some(step),
                Wanted {
                    run: Some(run),
                    step: None,
                },
            ) => Ok(Wanted {
                run: Some(*run),
                step: Some(step.clone()),
            }),
            _ => Err(
                Problem::new(format!("{first:?} is not the number of a run"))
                    .hint("hmvm runs lists the runs; hmvm logs STEP takes the newest one")
                    .into(),
            ),
        }
    }

    fn sources(
        &self,
        app: &App,
        runs: &RunStore,
        record: &RunRecord,
        steps: &[&StepRecord],
        one_alone: bool,
    ) -> Vec<Source> {
        let names = steps
            .iter()
            .map(|step| sanitize(&step.name).chars().count());
        let width = names.max().unwrap_or(0);
        let style = app.ui.out_style();
        let source = |step: &StepRecord| {
            let name = sanitize(&step.name);
            let padding = width.saturating_sub(name.chars().count());
            let prefix = style.hue(step.place, &format!("{name}{:padding$} | ", ""));
            let origin = Origin {
                step: step.name.clone(),
                prefix: (!one_alone).then_some(prefix),
                started: SystemTime::UNIX_EPOCH,
            };
            Source::new(history::log_path(runs, record, step), origin, self.tail)
        };
        steps.iter().map(|step| source(step)).collect()
    }
}

/// Whether the run goes on. One that cannot be read any more does not.
fn is_running(runs: &RunStore, id: u64) -> bool {
    let summary = runs.summary(id).ok().flatten();
    summary.is_some_and(|summary| summary.state == RunState::Running)
}
