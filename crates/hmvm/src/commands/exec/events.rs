//! What happens during an execution, for a person and for a program.
//!
//! With `--json`, standard output is one object a line, each with `event`;
//! `docs/cli.md` lists them with their fields.
//!
//! The last line is a `result` or an `error`. More fields and events may come.

use std::sync::Arc;
use std::time::Duration;

use hm_vm::{Event, EventSink, Phase, PhaseTimes, ResourceUsage, Stream, VmBackend};
use serde::{Serialize, Serializer};

use super::Done;
use super::sinks::JsonOutput;
use crate::failure::Report;
use crate::output::Ui;
use crate::output::gate::Gate;
use crate::output::json::milliseconds;

/// One line of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Line<'a> {
    Started {
        phase: Phase,
    },
    Ended {
        phase: Phase,
        #[serde(serialize_with = "as_ms")]
        ms: Duration,
    },
    Output {
        stream: Stream,
        line: &'a str,
    },
    Notice {
        text: &'a str,
    },
    Shared {
        results: u64,
        bytes: u64,
    },
    Result {
        exit_code: i32,
        cached: bool,
        snapshot: Option<&'a str>,
        kept: Option<&'a str>,
        key: Option<&'a str>,
        fetched_bytes: Option<u64>,
        #[serde(serialize_with = "by_phase")]
        phases: &'a PhaseTimes,
        usage: Option<Usage>,
    },
    Error {
        message: Option<&'a str>,
        hint: Option<&'a str>,
        exit_code: u8,
    },
}

/// What a command used, as `--json` tells it.
#[derive(Serialize)]
pub(super) struct Usage {
    #[serde(serialize_with = "as_ms")]
    wall_ms: Duration,
    #[serde(serialize_with = "as_optional_ms")]
    cpu_ms: Option<Duration>,
    peak_memory_bytes: Option<u64>,
    written_bytes: Option<u64>,
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

fn by_phase<S: Serializer>(phases: &&PhaseTimes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        phases
            .iter()
            .map(|(phase, took)| (phase.name(), milliseconds(took))),
    )
}

impl Line<'_> {
    /// Writes the event, whole, as one line.
    pub(super) fn emit(&self, gate: &Gate) {
        let mut line = Vec::new();
        self.append_to(&mut line);
        gate.write(Stream::Stdout, &line);
    }

    /// Adds the event to others that are to be written together.
    pub(super) fn append_to(&self, lines: &mut Vec<u8>) {
        match serde_json::to_writer(&mut *lines, self) {
            Ok(()) => lines.push(b'\n'),
            // No event holds anything that JSON cannot.
            Err(error) => tracing::error!(%error, "an event was not written"),
        }
    }
}

/// Writes a notice.
pub(super) fn notice(gate: &Gate, text: &str) {
    Line::Notice { text }.emit(gate);
}

/// Writes what was shared with other machines.
pub(super) fn shared(gate: &Gate, results: u64, bytes: u64) {
    Line::Shared { results, bytes }.emit(gate);
}

/// Writes the closing event of an execution that came to its end.
pub(super) fn result(gate: &Gate, done: &Done) {
    let result = &done.result;
    let usage = result.usage.as_ref().map(|usage: &ResourceUsage| Usage {
        wall_ms: usage.wall,
        cpu_ms: usage.cpu,
        peak_memory_bytes: usage.peak_memory_bytes,
        written_bytes: usage.written_bytes,
    });
    Line::Result {
        exit_code: result.exit_code,
        cached: result.cached,
        snapshot: result.snapshot.as_deref(),
        kept: result.kept.as_deref(),
        key: done.key.as_deref(),
        fetched_bytes: result.remote.map(|remote| remote.bytes),
        phases: &result.phases,
        usage,
    }
    .emit(gate);
}

/// Writes the closing event of an execution that failed.
pub(super) fn failed(gate: &Gate, report: &Report) {
    Line::Error {
        message: report.message.as_deref(),
        hint: report.hint.as_deref(),
        exit_code: report.code,
    }
    .emit(gate);
}

/// Events as lines of JSON.
#[derive(Debug)]
pub(super) struct JsonEvents {
    gate: Arc<Gate>,
    output: Arc<JsonOutput>,
    backend: Arc<dyn VmBackend>,
}

impl JsonEvents {
    pub(super) fn new(
        gate: Arc<Gate>,
        output: Arc<JsonOutput>,
        backend: Arc<dyn VmBackend>,
    ) -> Self {
        Self {
            gate,
            output,
            backend,
        }
    }
}

impl EventSink for JsonEvents {
    fn on_event(&self, event: &Event) {
        let line = match event {
            Event::Started(phase) => {
                if *phase == Phase::Exec {
                    begin(&self.gate, &self.backend, |text| notice(&self.gate, text));
                }
                Line::Started { phase: *phase }
            }
            Event::Ended { phase, took } => {
                if *phase == Phase::Exec {
                    self.output.finish();
                }
                Line::Ended {
                    phase: *phase,
                    ms: *took,
                }
            }
            Event::Notice(text) => return notice(&self.gate, text),
            _ => return,
        };
        line.emit(&self.gate);
    }
}

/// The few events that a person wants to see as they happen.
#[derive(Debug)]
pub(super) struct PlainEvents {
    gate: Arc<Gate>,
    ui: Ui,
    backend: Arc<dyn VmBackend>,
}

impl PlainEvents {
    pub(super) fn new(gate: Arc<Gate>, ui: Ui, backend: Arc<dyn VmBackend>) -> Self {
        Self { gate, ui, backend }
    }
}

impl EventSink for PlainEvents {
    fn on_event(&self, event: &Event) {
        match event {
            Event::Started(Phase::Exec) => {
                begin(&self.gate, &self.backend, |text| self.ui.notice(text));
            }
            Event::Started(Phase::Wait) => self
                .ui
                .say("hmvm: the same command is running elsewhere, waiting for its result"),
            Event::Notice(text) => self.ui.notice(text),
            _ => {}
        }
    }
}

/// The command begins. What the backend has to tell is asked for only now: to know it, it may have
/// to look at the machine, which takes time, and is of no interest on a hit.
fn begin(gate: &Gate, backend: &Arc<dyn VmBackend>, tell: impl Fn(&str)) {
    gate.start_clock();
    for text in backend.notices() {
        tell(&text);
    }
}
