//! Where output goes.

use serde::{Deserialize, Serialize};

/// One of the two output streams of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Receives the output of a command, line by line, or in raw bytes where it asks for them.
///
/// Calls come in order for each of the two streams. A call that takes long holds the command back
/// once the pipes are full: output is never dropped.
pub trait OutputSink: Send + Sync {
    /// One line of standard output, without its line end. See [`LineSplitter`] for what a line is.
    ///
    /// [`LineSplitter`]: crate::LineSplitter
    fn on_stdout(&self, line: &str);

    /// One line of standard error, without its line end.
    fn on_stderr(&self, line: &str);

    /// Whether this sink takes [`on_bytes`](Self::on_bytes) instead of lines. Must not change.
    /// A backend that has only lines may go on to deliver lines.
    fn wants_bytes(&self) -> bool {
        false
    }

    /// A chunk of output exactly as the command wrote it. Called instead of the line methods when
    /// [`wants_bytes`](Self::wants_bytes) is true.
    fn on_bytes(&self, stream: Stream, bytes: &[u8]) {
        let _ = (stream, bytes);
    }
}

impl dyn OutputSink + '_ {
    /// Delivers one line of `stream`.
    pub fn on_line(&self, stream: Stream, line: &str) {
        match stream {
            Stream::Stdout => self.on_stdout(line),
            Stream::Stderr => self.on_stderr(line),
        }
    }
}

/// Discards all output.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullSink;

impl OutputSink for NullSink {
    fn on_stdout(&self, _line: &str) {}

    fn on_stderr(&self, _line: &str) {}

    fn wants_bytes(&self) -> bool {
        true
    }
}
