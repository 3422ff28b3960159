//! Where the command's output goes: as it is, or as events.

use std::sync::Arc;

use hm_vm::{OutputSink, Stream};
use serde_json::json;

use super::events;
use super::gate::Gate;

/// Passes the output through byte by byte.
#[derive(Debug)]
pub(super) struct RawOutput {
    gate: Arc<Gate>,
}

impl RawOutput {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { gate }
    }

    /// For a backend that has only lines.
    fn line(&self, stream: Stream, line: &str) {
        self.gate.write(stream, format!("{line}\n").as_bytes());
    }
}

impl OutputSink for RawOutput {
    fn on_stdout(&self, line: &str) {
        self.line(Stream::Stdout, line);
    }

    fn on_stderr(&self, line: &str) {
        self.line(Stream::Stderr, line);
    }

    fn wants_bytes(&self) -> bool {
        true
    }

    fn on_bytes(&self, stream: Stream, bytes: &[u8]) {
        self.gate.write(stream, bytes);
    }
}

/// Makes each line an event. Bytes that are not UTF-8 become U+FFFD.
#[derive(Debug)]
pub(super) struct JsonOutput {
    gate: Arc<Gate>,
}

impl JsonOutput {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { gate }
    }

    fn line(&self, stream: Stream, line: &str) {
        let event = json!({ "event": "output", "stream": stream, "line": line });
        events::emit(&self.gate, &event);
    }
}

impl OutputSink for JsonOutput {
    fn on_stdout(&self, line: &str) {
        self.line(Stream::Stdout, line);
    }

    fn on_stderr(&self, line: &str) {
        self.line(Stream::Stderr, line);
    }
}
