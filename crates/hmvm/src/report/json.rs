//! Events for programs: one JSON object a line on standard output.
//!
//! Version 1 of the schema is documented in `docs/cli.md`. Later versions may add events and fields; what changes the
//! meaning of one of them gets another number in `schema`.

use std::borrow::Cow;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hm_pipeline::{RunEvent, RunEventSink, SkipReason, StepId, StepOutcome, StepResult, Verdict};
use hm_vm::{Phase, ProgressUnit, Stream};
use serde::{Serialize, Serializer};

use super::queue::Queue;
use super::start::View;
use super::tally::{Counts, Facts, Tally};
use crate::exit_codes;
use crate::output::json::{append_line, milliseconds};

/// Version of the events.
pub(super) const SCHEMA: u32 = 1;

/// One line.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    RunStarted {
        schema: u32,
        run: u64,
        pipeline: &'a str,
        steps: usize,
        parallelism: usize,
        log_directory: Cow<'a, str>,
    },
    StepStarted {
        step: &'a str,
        attempt: u32,
    },
    Phase {
        step: &'a str,
        phase: Phase,
    },
    Progress {
        step: &'a str,
        phase: Phase,
        unit: ProgressUnit,
        done: u64,
        total: Option<u64>,
    },
    Output {
        step: &'a str,
        stream: Stream,
        line: &'a str,
    },
    ServiceOutput {
        step: &'a str,
        service: &'a str,
        stream: Stream,
        line: &'a str,
    },
    Notice {
        step: Option<&'a str>,
        text: &'a str,
    },
    Shared {
        results: u64,
        bytes: u64,
    },
    StepRetried(End<'a>),
    StepEnded(End<'a>),
    RunEnded {
        verdict: &'a str,
        step: Option<&'a str>,
        exit_code: i32,
        #[serde(serialize_with = "as_ms")]
        took_ms: Duration,
        counts: Counts,
        #[serde(serialize_with = "as_ms")]
        saved_ms: Duration,
    },
}

/// How a try or a step ended.
#[derive(Serialize)]
struct End<'a> {
    step: &'a str,
    outcome: &'a str,
    exit_code: Option<i32>,
    cached: bool,
    #[serde(serialize_with = "as_ms")]
    took_ms: Duration,
    #[serde(serialize_with = "as_optional_ms")]
    saved_ms: Option<Duration>,
    fetched_bytes: Option<u64>,
    attempt: u32,
    key: Option<&'a str>,
    snapshot: Option<&'a str>,
    kept: Option<&'a str>,
    log: Option<Cow<'a, str>>,
    reason: Option<&'a str>,
    because: Option<&'a str>,
    hint: Option<&'a str>,
    allowed: bool,
    output_files: u64,
}

fn as_ms<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    milliseconds(*time).serialize(serializer)
}

fn as_optional_ms<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(milliseconds).serialize(serializer)
}

/// The view for programs.
#[derive(Debug)]
pub(super) struct Json {
    facts: Facts,
    queue: Queue,
    tally: Mutex<Tally>,
}

impl Json {
    pub(super) fn new(facts: Facts, queue: Queue) -> Self {
        Self {
            facts,
            queue,
            tally: Mutex::default(),
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, step: StepId) -> &str {
        self.facts.raw_name(step)
    }

    fn put(&self, line: &Line<'_>) {
        self.queue
            .put(Stream::Stdout, |bytes| append_line(bytes, line));
    }

    /// Output waits for its turn; it is made into JSON before, by many threads at once.
    fn put_output(&self, line: &Line<'_>) {
        if self.queue.is_closed() {
            return;
        }
        let mut text = Vec::with_capacity(256);
        append_line(&mut text, line);
        self.queue
            .put_in_turn(Stream::Stdout, |bytes| bytes.extend_from_slice(&text));
    }

    fn end<'a>(&'a self, step: StepId, result: &'a StepResult) -> End<'a> {
        let detail = &result.detail;
        let (reason, because, hint) = match &result.outcome {
            StepOutcome::Skipped(SkipReason::Dependency(other)) => {
                (Some("dependency"), Some(self.name(*other)), None)
            }
            StepOutcome::Skipped(reason) => (Some(skip_name(reason)), None, None),
            StepOutcome::Broken { message, hint } => {
                (Some(message.as_str()), None, hint.as_deref())
            }
            _ => (None, None, None),
        };
        End {
            step: self.name(step),
            outcome: result.outcome.name(),
            exit_code: match result.outcome {
                StepOutcome::Cached | StepOutcome::Succeeded => Some(0),
                StepOutcome::Failed { exit_code } => Some(exit_code),
                _ => None,
            },
            cached: result.outcome == StepOutcome::Cached,
            took_ms: result.took,
            saved_ms: detail.saved,
            fetched_bytes: detail.fetched_bytes,
            attempt: result.attempt,
            key: detail.key.as_deref(),
            snapshot: detail.snapshot.as_deref(),
            kept: detail.kept.as_deref(),
            log: detail.log.as_ref().map(|log| log.to_string_lossy()),
            reason,
            because,
            hint,
            allowed: result.allowed,
            output_files: detail.output_files,
        }
    }

    fn run_ended(&self, verdict: Verdict, took: Duration) {
        let (step, exit_code) = match verdict {
            Verdict::Succeeded => (None, i32::from(exit_codes::SUCCESS)),
            Verdict::Failed { step, exit_code } => (Some(step), exit_code),
            Verdict::TimedOut { step } => (step, i32::from(exit_codes::TIMED_OUT)),
            Verdict::Cancelled => (None, i32::from(exit_codes::CANCELLED)),
        };
        let tally = self.tally();
        self.put(&Line::RunEnded {
            verdict: verdict.name(),
            step: step.map(|step| self.name(step)),
            exit_code,
            took_ms: took,
            counts: tally.counts,
            saved_ms: tally.saved,
        });
    }
}

impl RunEventSink for Json {
    fn on_event(&self, event: &RunEvent) {
        match event {
            RunEvent::StepOutput { step, stream, line } => self.put_output(&Line::Output {
                step: self.name(*step),
                stream: *stream,
                line,
            }),
            RunEvent::ServiceOutput {
                step,
                service,
                stream,
                line,
            } => self.put_output(&Line::ServiceOutput {
                step: self.name(*step),
                service,
                stream: *stream,
                line,
            }),
            RunEvent::RunStarted { parallelism, steps } => self.put(&Line::RunStarted {
                schema: SCHEMA,
                run: self.facts.run,
                pipeline: &self.facts.plan.pipeline.name,
                steps: *steps,
                parallelism: *parallelism,
                log_directory: self.facts.log_directory.to_string_lossy(),
            }),
            RunEvent::StepStarted { step, attempt } => self.put(&Line::StepStarted {
                step: self.name(*step),
                attempt: *attempt,
            }),
            RunEvent::StepPhase { step, phase } => self.put(&Line::Phase {
                step: self.name(*step),
                phase: *phase,
            }),
            RunEvent::StepProgress { step, phase, state } => self.put(&Line::Progress {
                step: self.name(*step),
                phase: *phase,
                unit: state.unit,
                done: state.done,
                total: state.total,
            }),
            RunEvent::Notice { step, text } => self.put(&Line::Notice {
                step: step.map(|step| self.name(step)),
                text,
            }),
            RunEvent::Shared { results, bytes } => self.put(&Line::Shared {
                results: *results,
                bytes: *bytes,
            }),
            RunEvent::StepRetried { step, result, .. } => {
                self.put(&Line::StepRetried(self.end(*step, result)));
            }
            RunEvent::StepEnded { step, result } => {
                self.tally().end(*step, result);
                self.put(&Line::StepEnded(self.end(*step, result)));
            }
            RunEvent::RunEnded { verdict, took } => self.run_ended(*verdict, *took),
            _ => {}
        }
    }
}

impl View for Json {
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

fn skip_name(reason: &SkipReason) -> &'static str {
    match reason {
        SkipReason::Condition => "condition",
        SkipReason::Dependency(_) => "dependency",
        SkipReason::RunFailed => "run_failed",
        SkipReason::NotNeeded => "not_needed",
        _ => "other",
    }
}
