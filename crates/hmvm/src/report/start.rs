//! A report, and how one is chosen and begun.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;

use hm_pipeline::{Plan, RunEvent, RunEventSink};
use hm_vm::Cancellation;

use super::json::Json;
use super::live::Live;
use super::plain::Plain;
use super::queue::{Outlet, Queue};
use super::tally::Facts;
use crate::app::App;
use crate::failure::OutputClosed;
use crate::output::gate::Gate;

/// Which of the views a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Redrawn on a terminal.
    Live,
    /// Output of the steps with their names before it, on standard output; the rest on standard error.
    Plain,
    /// Events on standard output.
    Json,
    /// Steps that failed, and nothing else.
    Quiet,
}

impl Mode {
    /// Chooses by what the user asked for. `is_terminal` is whether standard output *and* standard error are terminals:
    /// who sends one of them elsewhere wants to have the lines.
    pub(crate) fn choose(json: bool, quiet: bool, is_terminal: bool) -> Self {
        match (json, quiet, is_terminal) {
            (true, _, _) => Self::Json,
            (_, true, _) => Self::Quiet,
            (_, _, true) => Self::Live,
            _ => Self::Plain,
        }
    }
}

/// What a report has to know of its run.
#[derive(Debug)]
pub(crate) struct ReportContext {
    /// What was planned.
    pub(crate) plan: Arc<Plan>,
    /// Number of the run.
    pub(crate) run: u64,
    /// Directory of the logs of its steps.
    pub(crate) log_directory: PathBuf,
    /// Cancels the run: triggered when nobody reads standard output any more, or it cannot be written.
    pub(crate) cancel: Cancellation,
}

/// What the person sees of one run. Takes its events; must be [finished](Self::finish).
pub(crate) struct Report {
    view: Box<dyn View>,
}

/// One way to show a run.
pub(super) trait View: RunEventSink {
    /// Shows what is not shown yet. A second call does nothing.
    fn finish(&self);

    /// Whether nobody reads standard output any more.
    fn is_closed(&self) -> bool;

    /// The first failure to write, once.
    fn take_error(&self) -> Option<io::Error>;
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").finish_non_exhaustive()
    }
}

/// Begins the report of a run.
///
/// # Errors
///
/// No thread can be had.
pub(crate) fn start(app: &App, mode: Mode, context: ReportContext) -> anyhow::Result<Arc<Report>> {
    let ReportContext {
        plan,
        run,
        log_directory,
        cancel,
    } = context;
    let facts = Facts::new(plan, run, log_directory);
    let queue = |cancel| {
        let gate: Arc<dyn Outlet> = Arc::new(Gate::new(cancel, None));
        Queue::new(gate)
    };
    let is_terminal = io::stdout().is_terminal();
    let (out, err) = (app.ui.out_style(), app.ui.err_style());
    let view: Box<dyn View> = match mode {
        Mode::Live => Box::new(Live::on_stderr(app, facts, cancel)?),
        Mode::Json => Box::new(Json::new(facts, queue(cancel)?)),
        Mode::Plain => {
            let lines = Lines {
                out,
                err,
                is_terminal,
            };
            Box::new(Plain::new(facts, queue(cancel)?, lines))
        }
        Mode::Quiet => Box::new(Plain::quiet(facts, queue(cancel)?, err)),
    };
    Ok(Arc::new(Report { view }))
}

/// How the lines of the plain view look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    /// Colours of standard output.
    pub(super) out: crate::output::Style,
    /// Colours of standard error.
    pub(super) err: crate::output::Style,
    /// Standard output is a terminal: harmful characters are taken out of what steps write.
    pub(super) is_terminal: bool,
}

impl Report {
    /// A report with this view.
    #[cfg(test)]
    pub(super) fn of(view: Box<dyn View>) -> Self {
        Self { view }
    }

    /// Whether nobody reads standard output any more. The run is cancelled then.
    pub(crate) fn closed(&self) -> bool {
        self.view.is_closed()
    }

    /// The first failure to write, other than a reader who went away; once.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.view.take_error()
    }

    /// Waits until all is shown. To be called when the run is over, from outside of async code or where blocking is no
    /// matter. A second call does nothing.
    ///
    /// # Errors
    ///
    /// [`OutputClosed`], or what [`take_error`](Self::take_error) gives.
    pub(crate) fn finish(&self) -> anyhow::Result<()> {
        self.view.finish();
        if self.closed() {
            return Err(OutputClosed.into());
        }
        match self.take_error() {
            Some(error) => Err(anyhow::Error::new(error).context("cannot write the run's output")),
            None => Ok(()),
        }
    }
}

impl RunEventSink for Report {
    fn on_event(&self, event: &RunEvent) {
        self.view.on_event(event);
    }
}
