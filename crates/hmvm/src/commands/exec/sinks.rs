//! Where the command's output goes: as it is, or as events.

use std::sync::{Arc, Mutex, PoisonError};

use hm_vm::{LineSplitter, OutputSink, Stream};

use super::events::Line;
use crate::output::gate::Gate;

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
///
/// It takes bytes and splits them itself, so that the lines of a chunk are written together: a
/// flood of short lines costs two system calls a chunk, not two a line.
#[derive(Debug)]
pub(super) struct JsonOutput {
    gate: Arc<Gate>,
    splitters: Mutex<[LineSplitter; 2]>,
}

impl JsonOutput {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self {
            gate,
            splitters: Mutex::default(),
        }
    }

    /// Delivers last lines that have no line end. A second call does nothing.
    pub(super) fn finish(&self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.split(stream, |splitter, deliver| splitter.finish(deliver));
        }
    }

    fn split(&self, stream: Stream, work: impl FnOnce(&mut LineSplitter, &mut dyn FnMut(&str))) {
        if self.gate.is_closed() {
            return;
        }
        let mut events = Vec::new();
        let mut splitters = self
            .splitters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let [stdout, stderr] = &mut *splitters;
        let splitter = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        work(splitter, &mut |line| {
            Line::Output { stream, line }.append_to(&mut events);
        });
        if !events.is_empty() {
            self.gate.write(Stream::Stdout, &events);
        }
    }
}

impl OutputSink for JsonOutput {
    fn on_stdout(&self, line: &str) {
        self.on_bytes(Stream::Stdout, format!("{line}\n").as_bytes());
    }

    fn on_stderr(&self, line: &str) {
        self.on_bytes(Stream::Stderr, format!("{line}\n").as_bytes());
    }

    fn wants_bytes(&self) -> bool {
        true
    }

    fn on_bytes(&self, stream: Stream, bytes: &[u8]) {
        self.split(stream, |splitter, deliver| splitter.push(bytes, deliver));
    }
}
