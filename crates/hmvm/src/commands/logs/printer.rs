//! How lines of logs are shown.

use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime};

use hm_vm::Stream;
use hm_vm::output::LogChunk;
use serde_json::json;

use super::lines::Line;
use crate::output::gate::Gate;
use crate::output::human;
use crate::output::json::{append_line, milliseconds};
use crate::output::sanitize::terminal_line;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// JSON.
    pub(super) json: bool,
    /// The time before each line.
    pub(super) timestamps: bool,
    /// One stream alone.
    pub(super) only: Option<Stream>,
    /// Standard output and standard error are terminals.
    pub(super) terminals: [bool; 2],
}

impl Form {
    /// Looks at the streams of the program.
    pub(super) fn here(json: bool, timestamps: bool, only: Option<Stream>) -> Self {
        let terminals = [
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal(),
        ];
        Self {
            json,
            timestamps,
            only,
            terminals,
        }
    }

    fn is_terminal(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.terminals[0],
            Stream::Stderr => self.terminals[1],
        }
    }

    fn shows(&self, stream: Stream) -> bool {
        self.only.is_none_or(|only| only == stream)
    }
}

/// The step that a line is of.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// Name of the step.
    pub(super) step: String,
    /// What comes before its lines, where those of several steps are shown.
    pub(super) prefix: Option<String>,
    /// When its log begins.
    pub(super) started: SystemTime,
}

impl Form {
    /// Whether chunks of this stream are passed through as they are, where nothing is to be put before lines.
    pub(super) fn is_raw(&self, origin: &Origin, stream: Stream) -> bool {
        !self.json && !self.timestamps && origin.prefix.is_none() && !self.is_terminal(stream)
    }

    /// Passes a chunk through.
    pub(super) fn write_chunk(&self, gate: &Gate, chunk: &LogChunk) {
        if self.shows(chunk.stream) {
            gate.write(chunk.stream, &chunk.bytes);
        }
    }

    /// Adds a line, as it is to be shown, to others that are to be written together. Returns to which stream.
    pub(super) fn append(
        &self,
        origin: &Origin,
        line: Line<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Stream> {
        if !self.shows(line.stream) {
            return None;
        }
        if self.json {
            let text = String::from_utf8_lossy(line.bytes);
            let object = json!({
                "step": origin.step,
                "time": precise(origin.started + line.at),
                "at_ms": milliseconds(line.at),
                "stream": line.stream,
                "line": text,
            });
            append_line(out, &object);
            return Some(Stream::Stdout);
        }
        // Lines of several steps are one listing; those of one step are what it wrote, where it wrote it.
        let stream = match &origin.prefix {
            Some(prefix) => {
                out.extend_from_slice(prefix.as_bytes());
                Stream::Stdout
            }
            None => line.stream,
        };
        if self.timestamps {
            out.extend_from_slice(precise(origin.started + line.at).as_bytes());
            out.push(b' ');
        }
        if self.is_terminal(stream) {
            let text = String::from_utf8_lossy(line.bytes);
            out.extend_from_slice(terminal_line(&text).as_bytes());
        } else {
            out.extend_from_slice(line.bytes);
        }
        let whole = origin.prefix.is_some() || self.timestamps || self.is_terminal(stream);
        if line.ended || whole {
            out.push(b'\n');
        }
        Some(stream)
    }
}

/// A time with milliseconds: `2026-03-01T12:00:00.250Z`.
fn precise(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let text = human::timestamp(time);
    format!(
        "{}.{:03}Z",
        text.trim_end_matches('Z'),
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(prefix: Option<&str>) -> Origin {
        Origin {
            step: "build".into(),
            prefix: prefix.map(str::to_owned),
            started: SystemTime::UNIX_EPOCH,
        }
    }

    fn shown(form: Form, origin: &Origin, stream: Stream, bytes: &[u8], ended: bool) -> String {
        let line = Line {
            stream,
            at: Duration::from_millis(1250),
            bytes,
            ended,
        };
        let mut out = Vec::new();
        let to = form.append(origin, line, &mut out);
        format!("{to:?} {}", String::from_utf8_lossy(&out))
    }

    #[test]
    fn lines_are_shown_as_asked() {
        let form = Form::default();
        assert_eq!(
            shown(form, &origin(None), Stream::Stderr, b"a\x1b[2J", false),
            "Some(Stderr) a\u{1b}[2J"
        );
        assert_eq!(
            shown(form, &origin(Some("build | ")), Stream::Stderr, b"a", false),
            "Some(Stdout) build | a\n"
        );
        let terminal = Form {
            terminals: [false, true],
            ..form
        };
        assert_eq!(
            shown(
                terminal,
                &origin(None),
                Stream::Stderr,
                b"a\x1b[2J\xff",
                true
            ),
            "Some(Stderr) a\\u{1b}[2J\u{fffd}\n"
        );
        let timed = Form {
            timestamps: true,
            only: Some(Stream::Stdout),
            ..form
        };
        assert_eq!(
            shown(timed, &origin(None), Stream::Stderr, b"a", true),
            "None "
        );
        assert_eq!(
            shown(timed, &origin(None), Stream::Stdout, b"a", true),
            "Some(Stdout) 1970-01-01T00:00:01.250Z a\n"
        );
        let json = Form { json: true, ..form };
        assert_eq!(
            shown(json, &origin(None), Stream::Stderr, b"a", true),
            "Some(Stdout) {\"at_ms\":1250.0,\"line\":\"a\",\"step\":\"build\",\"stream\":\"stderr\",\"time\":\"1970-01-01T00:00:01.250Z\"}\n"
        );
    }
}
