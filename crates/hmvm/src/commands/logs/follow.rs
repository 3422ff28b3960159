//! Showing logs to their ends, or as they grow.

use std::thread;
use std::time::Duration;

use super::printer::Form;
use super::source::{Progress, Source};
use crate::app::App;
use crate::failure::OutputClosed;
use crate::output::gate::Gate;

/// Time between two looks at logs that grow.
const INTERVAL: Duration = Duration::from_millis(200);

/// Shows what the logs have, one after the other.
///
/// # Errors
///
/// A log cannot be read, or the output cannot be written.
pub(super) fn show(
    app: &App,
    sources: &mut [Source],
    form: &Form,
    gate: &Gate,
    is_alive: bool,
) -> anyhow::Result<()> {
    for source in sources {
        let progress = source.advance(form, gate)?;
        source.finish(form, gate);
        checked(gate)?;
        // The log of a run that goes on ends where it is; that of one that is over should not.
        if progress == Progress::Pending && !is_alive {
            let step = crate::output::sanitize::sanitize(source.step()).into_owned();
            app.ui.notice(&format!(
                "the log of {step} ends early: hmvm was killed while it wrote it"
            ));
        }
    }
    Ok(())
}

/// Shows what the logs have and what comes, until the run is over.
///
/// # Errors
///
/// As [`show`].
pub(super) fn follow(
    sources: &mut Vec<Source>,
    form: &Form,
    gate: &Gate,
    is_alive: &dyn Fn() -> bool,
) -> anyhow::Result<()> {
    loop {
        // Asked before reading: what was written until the end is read then.
        let alive = is_alive();
        let mut rest = Vec::new();
        for mut source in std::mem::take(sources) {
            let progress = source.advance(form, gate)?;
            if progress == Progress::Ended || !alive {
                source.finish(form, gate);
            } else {
                source.release(form, gate);
                rest.push(source);
            }
            checked(gate)?;
        }
        *sources = rest;
        if sources.is_empty() {
            return Ok(());
        }
        thread::sleep(INTERVAL);
    }
}

fn checked(gate: &Gate) -> anyhow::Result<()> {
    if gate.is_closed() {
        return Err(OutputClosed.into());
    }
    match gate.take_error() {
        Some(error) => Err(anyhow::Error::new(error).context("cannot write the log")),
        None => Ok(()),
    }
}
