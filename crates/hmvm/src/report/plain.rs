//! Lines, one after the other: for pipes, files and CI. Quiet is the same with little said.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hm_pipeline::{Decision, RunEvent, RunEventSink, StepId, StepOutcome, StepResult, Verdict};
use hm_vm::{Phase, Stream};

use super::queue::Queue;
use super::start::{Lines, View};
use super::tail::{LINES, Tail};
use super::tally::{Facts, Tally};
use super::{failure, summary, words};
use crate::output::Style;
use crate::output::human::plural;
use crate::output::sanitize::{sanitize, terminal_line};
use crate::remote_cache::shared_text;

/// Names longer than this do not widen the column of names.
const WIDEST_NAME: usize = 32;

/// The plain view, and the quiet one.
#[derive(Debug)]
pub(super) struct Plain {
    facts: Facts,
    queue: Queue,
    err: Style,
    /// How output is shown; not at all when quiet.
    output: Option<Output>,
    steps: Vec<Mutex<Step>>,
    tally: Mutex<Tally>,
}

/// How output is shown.
#[derive(Debug)]
struct Output {
    lines: Lines,
    /// Width of the column of names.
    width: usize,
    /// What comes before each line of a step.
    prefixes: Vec<String>,
    /// Lines shown so far.
    shown: AtomicU64,
}

/// What is known of one step.
#[derive(Debug, Default)]
struct Step {
    tail: Tail,
    /// Number of its last line among those of all steps.
    last_shown: u64,
    /// That it runs, and why, has been told.
    announced: bool,
}

impl Plain {
    /// All that happens.
    pub(super) fn new(facts: Facts, queue: Queue, lines: Lines) -> Self {
        let names = facts.plan.order.iter().map(|step| facts.name(*step));
        let width = names.map(|name| name.chars().count());
        let width = width.max().unwrap_or(0).min(WIDEST_NAME);
        let ids = facts.plan.pipeline.ids();
        let prefixes = ids.map(|id| prefix(facts.name(id), id, width, lines.out));
        let output = Output {
            lines,
            width,
            prefixes: prefixes.collect(),
            shown: AtomicU64::new(0),
        };
        Self::with(facts, queue, lines.err, Some(output))
    }

    /// Only what fails.
    pub(super) fn quiet(facts: Facts, queue: Queue, err: Style) -> Self {
        Self::with(facts, queue, err, None)
    }

    fn with(facts: Facts, queue: Queue, err: Style, output: Option<Output>) -> Self {
        let steps = facts.plan.pipeline.ids().map(|_| Mutex::default());
        Self {
            steps: steps.collect(),
            facts,
            queue,
            err,
            output,
            tally: Mutex::default(),
        }
    }

    fn step(&self, step: StepId) -> MutexGuard<'_, Step> {
        let step = &self.steps[step.0];
        step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, text: &str) {
        self.queue.put(Stream::Stderr, |bytes| {
            bytes.extend_from_slice(text.as_bytes())
        });
    }

    /// Tells something of the run; not when quiet.
    fn say(&self, text: &str) {
        if self.output.is_some() {
            self.put(&format!("{text}\n"));
        }
    }

    /// Tells something of a step; not when quiet.
    fn say_of(&self, step: StepId, text: &str) {
        self.say(&format!("{}: {text}", self.coloured_name(step)));
    }

    fn coloured_name(&self, step: StepId) -> String {
        self.err.hue(step.0, self.facts.name(step))
    }

    fn announce(&self, step: StepId) {
        let announced = std::mem::replace(&mut self.step(step).announced, true);
        if announced {
            return;
        }
        let planned = &self.facts.plan.steps[step.0];
        let reason = match &planned.decision {
            Decision::Run(reason) => words::run_reason(reason, self.facts.names()),
            Decision::Hit(_) | Decision::Skip(_) => "its snapshot is needed".into(),
        };
        self.say_of(step, &format!("runs ({reason})"));
    }

    fn started(&self, step: StepId, attempt: u32) {
        if attempt > 1 {
            self.step(step).tail.clear();
            self.say_of(step, &format!("runs again (attempt {attempt})"));
        } else if matches!(self.facts.plan.steps[step.0].decision, Decision::Run(_)) {
            self.announce(step);
        }
    }

    fn output(&self, step: StepId, line: &str) {
        let Some(output) = &self.output else {
            self.step(step).tail.push(line);
            return;
        };
        if self.queue.is_closed() {
            return;
        }
        let number = output.shown.fetch_add(1, Ordering::Relaxed) + 1;
        {
            let mut step = self.step(step);
            step.tail.push(line);
            step.last_shown = number;
        }
        self.line(output, &output.prefixes[step.0], line);
    }

    fn line(&self, output: &Output, prefix: &str, line: &str) {
        self.queue.put_in_turn(Stream::Stdout, |bytes| {
            bytes.extend_from_slice(prefix.as_bytes());
            if output.lines.is_terminal {
                bytes.extend_from_slice(terminal_line(line).as_bytes());
            } else {
                bytes.extend_from_slice(line.as_bytes());
            }
            bytes.push(b'\n');
        });
    }

    fn service_output(&self, step: StepId, service: &str, line: &str) {
        if let Some(output) = &self.output {
            let name = format!("{}/{}", self.facts.name(step), sanitize(service));
            let prefix = prefix(&name, step, output.width, output.lines.out);
            self.line(output, &prefix, line);
        }
    }

    fn retried(&self, step: StepId, result: &StepResult) {
        let ending = words::ending(result, self.facts.names());
        self.say_of(
            step,
            &self.err.yellow(&format!("{ending}, will be tried again")),
        );
    }

    fn ended(&self, step: StepId, result: &StepResult) {
        self.tally().end(step, result);
        let ending = words::ending(result, self.facts.names());
        match &result.outcome {
            StepOutcome::Failed { .. }
            | StepOutcome::TimedOut { .. }
            | StepOutcome::Broken { .. } => {
                self.failed(step, result, &ending);
            }
            StepOutcome::Cached => self.say_of(step, &self.err.green(&ending)),
            _ => self.say_of(step, &ending),
        }
    }

    fn run_ended(&self, verdict: Verdict, took: Duration) {
        if self.output.is_some() {
            let text = summary::text(&self.facts, &self.tally(), verdict, took, self.err);
            self.put(&text);
        } else if verdict == (Verdict::TimedOut { step: None }) {
            // No step has said so.
            let text = self.err.red(&words::verdict(&self.facts, verdict));
            self.put(&format!("{text}\n"));
        }
    }

    fn failed(&self, step: StepId, result: &StepResult, ending: &str) {
        let details = {
            let known = self.step(step);
            // What was shown just now is not shown again.
            let seen = self.output.as_ref().is_some_and(|output| {
                let lines = u64::try_from(LINES).unwrap_or(u64::MAX);
                known.last_shown + 2 * lines > output.shown.load(Ordering::Relaxed)
            });
            let tail = known.tail.lines().filter(|_| !seen);
            failure::details(&self.facts, step, result, tail, self.err)
        };
        let ending = if result.allowed {
            self.err.yellow(ending)
        } else {
            self.err.red(ending)
        };
        self.put(&format!(
            "{}: {ending}\n{details}",
            self.coloured_name(step)
        ));
    }
}

impl RunEventSink for Plain {
    fn on_event(&self, event: &RunEvent) {
        match event {
            RunEvent::StepOutput { step, line, .. } => self.output(*step, line),
            RunEvent::ServiceOutput {
                step,
                service,
                line,
                ..
            } => self.service_output(*step, service, line),
            RunEvent::RunStarted { steps, parallelism } => {
                self.tally().steps = *steps;
                let count = plural(u64::try_from(*steps).unwrap_or(u64::MAX), "step");
                let (run, pipeline) = (self.facts.run, self.facts.pipeline());
                self.say(&format!(
                    "run {run} of {pipeline}: {count}, up to {parallelism} at once"
                ));
            }
            RunEvent::StepStarted { step, attempt } => self.started(*step, *attempt),
            RunEvent::StepPhase {
                step,
                phase: Phase::Create | Phase::Restore | Phase::Exec,
            } => self.announce(*step),
            RunEvent::StepPhase {
                step,
                phase: Phase::Wait,
            } => self.say_of(*step, "waits, as it is being run elsewhere"),
            RunEvent::Notice { step, text } => {
                let text = format!("{} {}", self.err.yellow("note:"), sanitize(text));
                match step {
                    Some(step) => self.say_of(*step, &text),
                    None => self.say(&text),
                }
            }
            RunEvent::Shared { results, bytes } => self.say(&shared_text(*results, *bytes)),
            RunEvent::StepRetried { step, result, .. } => self.retried(*step, result),
            RunEvent::StepEnded { step, result } => self.ended(*step, result),
            RunEvent::RunEnded { verdict, took } => self.run_ended(*verdict, *took),
            _ => {}
        }
    }
}

impl View for Plain {
    fn finish(&self) {
        self.queue.finish();
    }

    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn take_error(&self) -> Option<io::Error> {
        self.queue.take_error()
    }
}

fn prefix(name: &str, step: StepId, width: usize, style: Style) -> String {
    let padding = width.saturating_sub(name.chars().count());
    style.hue(step.0, &format!("{name}{:padding$} | ", ""))
}
