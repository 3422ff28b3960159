//! What happens during an execution, for a person and for a program.
//!
//! With `--json`, standard output is one object a line, each with `event`:
//!
//! | `event` | further fields |
//! |---|---|
//! | `started` | `phase` |
//! | `ended` | `phase`, `ms` |
//! | `output` | `stream` (`stdout`, `stderr`), `line` |
//! | `notice` | `text` |
//! | `result` | `exit_code`, `cached`, `snapshot`, `kept`, `key`, `phases` (`ms` by name), `usage` |
//! | `error` | `message`, `hint`, `exit_code` |
//!
//! The last line is a `result` or an `error`. More fields and events may come.

use std::sync::Arc;

use hm_vm::{Event, EventSink, Phase, ResourceUsage, Stream, VmBackend};
use serde_json::{Map, Value, json};

use super::Done;
use super::gate::Gate;
use crate::failure::Report;
use crate::output::Ui;
use crate::output::json::milliseconds;

/// Writes one event.
pub(super) fn emit(gate: &Gate, event: &Value) {
    gate.write(Stream::Stdout, format!("{event}\n").as_bytes());
}

/// Writes a notice.
pub(super) fn notice(gate: &Gate, text: &str) {
    emit(gate, &json!({ "event": "notice", "text": text }));
}

/// Writes the closing event of an execution that came to its end.
pub(super) fn result(gate: &Gate, done: &Done) {
    let result = &done.result;
    let mut phases = Map::new();
    for (phase, took) in result.phases.iter() {
        phases.insert(phase.name().to_owned(), milliseconds(took));
    }
    let event = json!({
        "event": "result",
        "exit_code": result.exit_code,
        "cached": result.cached,
        "snapshot": result.snapshot.as_deref(),
        "kept": result.kept.as_deref(),
        "key": done.key,
        "phases": phases,
        "usage": result.usage.as_ref().map(usage),
    });
    emit(gate, &event);
}

/// Writes the closing event of an execution that failed.
pub(super) fn failed(gate: &Gate, report: &Report) {
    let event = json!({
        "event": "error",
        "message": report.message,
        "hint": report.hint,
        "exit_code": report.code,
    });
    emit(gate, &event);
}

fn usage(usage: &ResourceUsage) -> Value {
    json!({
        "wall_ms": milliseconds(usage.wall),
        "cpu_ms": usage.cpu.map(milliseconds),
        "peak_memory_bytes": usage.peak_memory_bytes,
        "written_bytes": usage.written_bytes,
    })
}

/// Events as lines of JSON.
#[derive(Debug)]
pub(super) struct JsonEvents {
    gate: Arc<Gate>,
    backend: Arc<dyn VmBackend>,
}

impl JsonEvents {
    pub(super) fn new(gate: Arc<Gate>, backend: Arc<dyn VmBackend>) -> Self {
        Self { gate, backend }
    }
}

impl EventSink for JsonEvents {
    fn on_event(&self, event: &Event) {
        let value = match event {
            Event::Started(phase) => {
                if *phase == Phase::Exec {
                    begin(&self.gate, &self.backend, |text| notice(&self.gate, text));
                }
                json!({ "event": "started", "phase": phase })
            }
            Event::Ended { phase, took } => {
                json!({ "event": "ended", "phase": phase, "ms": milliseconds(*took) })
            }
            Event::Notice(text) => return notice(&self.gate, text),
            _ => return,
        };
        emit(&self.gate, &value);
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
