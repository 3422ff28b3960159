//! A view that is redrawn: what runs now at the bottom of the terminal, what is over above it.
//!
//! Events only change what is known; a thread draws it ten times a second. So a flood of output costs one copy of each
//! line, and a flood of steps that are cached one line of the terminal.

mod draw;
mod screen;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hm_pipeline::{RunEvent, RunEventSink, StepId, StepResult, Verdict};
use hm_vm::{Cancellation, Phase, ProgressState};

use super::start::View;
use super::tail::Tail;
use super::tally::{Facts, Tally};
use crate::app::App;
use crate::output::{Style, Ui};
use crate::remote_cache::shared_text;
use screen::Screen;

/// Time between two drawings.
const INTERVAL: Duration = Duration::from_millis(100);

/// The live view.
pub(super) struct Live {
    shared: Arc<Shared>,
    artist: Mutex<Option<JoinHandle<()>>>,
    /// Whose standard error this has.
    lender: Option<Ui>,
}

/// What the events change and the thread draws.
struct Shared {
    facts: Facts,
    cancel: Cancellation,
    style: Style,
    /// The terminal shows more than ASCII.
    utf8: bool,
    tails: Vec<Mutex<Tail>>,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    since: Instant,
    tally: Tally,
    running: BTreeMap<StepId, Running>,
    /// What is to stay on the terminal, and is not there yet.
    news: Vec<News>,
    ended: bool,
}

/// A step that is going on.
#[derive(Clone, Copy, Debug)]
struct Running {
    since: Instant,
    phase: Option<Phase>,
    /// How far the phase is, when it takes long.
    progress: Option<ProgressState>,
    attempt: u32,
}

/// Something that is to stay on the terminal.
#[derive(Clone, Debug)]
enum News {
    /// What the program says beside the run.
    Said(String),
    Notice {
        step: Option<StepId>,
        text: String,
    },
    Retried {
        step: StepId,
        result: Box<StepResult>,
    },
    Ended {
        step: StepId,
        result: Box<StepResult>,
    },
    RunEnded {
        verdict: Verdict,
        took: Duration,
    },
}

impl Live {
    /// A view on the terminal that standard error is. What else the program says there comes through `app`'s `ui`, and is
    /// drawn with the rest.
    ///
    /// # Errors
    ///
    /// No thread can be had.
    pub(super) fn on_stderr(app: &App, facts: Facts, cancel: Cancellation) -> io::Result<Self> {
        let (style, utf8) = (app.ui.err_style(), app.environment.utf8);
        let mut live = Self::on(Screen::stderr(), facts, cancel, style, utf8)?;
        let shared = live.shared.clone();
        app.ui.lend(move |text| shared.say(text));
        live.lender = Some(app.ui.clone());
        Ok(live)
    }

    fn on(
        mut screen: Screen,
        facts: Facts,
        cancel: Cancellation,
        style: Style,
        utf8: bool,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(facts, cancel, style, utf8));
        let artist = thread::Builder::new().name("report".into()).spawn({
            let shared = shared.clone();
            move || {
                while shared.wait() {
                    shared.draw(&mut screen);
                }
                shared.draw(&mut screen);
                screen.clear();
            }
        })?;
        Ok(Self {
            shared,
            artist: Mutex::new(Some(artist)),
            lender: None,
        })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.finish();
    }
}

impl RunEventSink for Live {
    fn on_event(&self, event: &RunEvent) {
        self.shared.take(event);
    }
}

impl View for Live {
    fn finish(&self) {
        let artist = {
            let mut artist = self.artist.lock().unwrap_or_else(PoisonError::into_inner);
            artist.take()
        };
        if let Some(artist) = artist {
            if let Some(lender) = &self.lender {
                lender.take_back();
            }
            self.shared.state().ended = true;
            self.shared.ended.notify_one();
            // One that panicked has said so itself.
            drop(artist.join());
        }
    }

    /// Nothing goes to standard output.
    fn is_closed(&self) -> bool {
        false
    }

    fn take_error(&self) -> Option<io::Error> {
        None
    }
}

impl Shared {
    fn new(facts: Facts, cancel: Cancellation, style: Style, utf8: bool) -> Self {
        let tails = facts.plan.pipeline.ids().map(|_| Mutex::default());
        Self {
            tails: tails.collect(),
            facts,
            cancel,
            style,
            utf8,
            state: Mutex::new(State {
                since: Instant::now(),
                tally: Tally::default(),
                running: BTreeMap::new(),
                news: Vec::new(),
                ended: false,
            }),
            ended: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail(&self, step: StepId) -> MutexGuard<'_, Tail> {
        let tail = &self.tails[step.0];
        tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is time to draw. `false` at the end of the run.
    fn wait(&self) -> bool {
        let state = self.state();
        let (state, _) = self
            .ended
            .wait_timeout_while(state, INTERVAL, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        !state.ended
    }

    fn take(&self, event: &RunEvent) {
        let news = match event {
            RunEvent::StepOutput { step, line, .. } => return self.tail(*step).push(line),
            RunEvent::RunStarted { steps, .. } => {
                self.state().tally.steps = *steps;
                return;
            }
            RunEvent::StepStarted { step, attempt } => return self.start(*step, *attempt),
            RunEvent::StepPhase { step, phase } => {
                if let Some(running) = self.state().running.get_mut(step) {
                    running.phase = Some(*phase);
                    running.progress = None;
                }
                return;
            }
            RunEvent::StepProgress { step, phase, state } => {
                if let Some(running) = self.state().running.get_mut(step) {
                    running.phase = Some(*phase);
                    running.progress = Some(*state);
                }
                return;
            }
            RunEvent::Notice { step, text } => News::Notice {
                step: *step,
                text: text.clone(),
            },
            RunEvent::Shared { results, bytes } => News::Said(shared_text(*results, *bytes) + "\n"),
            RunEvent::StepRetried { step, result, .. } => News::Retried {
                step: *step,
                result: result.clone(),
            },
            RunEvent::StepEnded { step, result } => News::Ended {
                step: *step,
                result: result.clone(),
            },
            RunEvent::RunEnded { verdict, took } => News::RunEnded {
                verdict: *verdict,
                took: *took,
            },
            _ => return,
        };
        let mut state = self.state();
        if let News::Ended { step, result } = &news {
            state.running.remove(step);
            state.tally.end(*step, result);
        }
        state.news.push(news);
    }

    fn say(&self, text: &str) {
        self.state().news.push(News::Said(text.to_owned()));
    }

    fn start(&self, step: StepId, attempt: u32) {
        if attempt > 1 {
            self.tail(step).clear();
        }
        let running = Running {
            since: Instant::now(),
            phase: None,
            progress: None,
            attempt,
        };
        self.state().running.insert(step, running);
    }
}

#[cfg(test)]
mod tests;
