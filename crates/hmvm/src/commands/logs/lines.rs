//! From the chunks of a log to its lines, byte for byte.

use std::collections::VecDeque;
use std::time::Duration;

use hm_vm::Stream;
use hm_vm::output::LogChunk;

/// Length beyond which a line is taken in pieces, so that memory is bounded.
const LONGEST: usize = 1 << 20;

/// A line, or a piece of a very long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) stream: Stream,
    /// When its first byte was written, from the beginning of the command.
    pub(super) at: Duration,
    /// Without its end.
    pub(super) bytes: &'a [u8],
    /// It has an end.
    pub(super) ended: bool,
}

/// Puts lines together across chunks, those of the two streams apart.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    stdout: Partial,
    stderr: Partial,
}

/// A line whose end has not come.
#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    at: Duration,
}

impl Cutter {
    /// Takes the next chunk, and delivers the lines that it completes.
    pub(super) fn push(&mut self, chunk: &LogChunk, deliver: &mut dyn FnMut(Line<'_>)) {
        let stream = chunk.stream;
        let partial = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        for piece in chunk.bytes.split_inclusive(|byte| *byte == b'\n') {
            if partial.bytes.is_empty() {
                partial.at = chunk.at;
            }
            let (bytes, ended) = match piece.strip_suffix(b"\n") {
                Some(bytes) => (bytes, true),
                None => (piece, false),
            };
            let at = partial.at;
            if ended && partial.bytes.is_empty() {
                deliver(Line {
                    stream,
                    at,
                    bytes,
                    ended,
                });
                continue;
            }
            partial.bytes.extend_from_slice(bytes);
            if ended || partial.bytes.len() >= LONGEST {
                deliver(Line {
                    stream,
                    at,
                    bytes: &partial.bytes,
                    ended,
                });
                partial.bytes.clear();
            }
        }
    }

    /// Delivers what has no end. A second call does nothing.
    pub(super) fn finish(&mut self, deliver: &mut dyn FnMut(Line<'_>)) {
        let streams = [
            (Stream::Stdout, &mut self.stdout),
            (Stream::Stderr, &mut self.stderr),
        ];
        for (stream, partial) in streams {
            if !partial.bytes.is_empty() {
                deliver(Line {
                    stream,
                    at: partial.at,
                    bytes: &partial.bytes,
                    ended: false,
                });
                partial.bytes.clear();
            }
        }
    }
}

/// The last lines, kept until the end of the log is known.
#[derive(Debug)]
pub(super) struct LastLines {
    count: usize,
    lines: VecDeque<(Stream, Duration, Vec<u8>, bool)>,
}

impl LastLines {
    /// The last `count` lines.
    pub(super) fn new(count: usize) -> Self {
        Self {
            count,
            lines: VecDeque::new(),
        }
    }

    /// Takes a line, and forgets one that is too old.
    pub(super) fn push(&mut self, line: Line<'_>) {
        if self.count == 0 {
            return;
        }
        let mut bytes = if self.lines.len() < self.count {
            Vec::new()
        } else {
            self.lines
                .pop_front()
                .map_or_else(Vec::new, |(_, _, bytes, _)| bytes)
        };
        bytes.clear();
        bytes.extend_from_slice(line.bytes);
        self.lines
            .push_back((line.stream, line.at, bytes, line.ended));
    }

    /// Delivers them, and forgets them.
    pub(super) fn deliver(&mut self, deliver: &mut dyn FnMut(Line<'_>)) {
        for (stream, at, bytes, ended) in self.lines.drain(..) {
            deliver(Line {
                stream,
                at,
                bytes: &bytes,
                ended,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(stream: Stream, at: u64, bytes: &[u8]) -> LogChunk {
        LogChunk {
            at: Duration::from_millis(at),
            stream,
            bytes: bytes.to_vec(),
        }
    }

    fn cut(chunks: &[LogChunk]) -> Vec<(Stream, u128, Vec<u8>, bool)> {
        let mut lines = Vec::new();
        let mut deliver = |line: Line<'_>| {
            lines.push((
                line.stream,
                line.at.as_millis(),
                line.bytes.to_vec(),
                line.ended,
            ));
        };
        let mut cutter = Cutter::default();
        for chunk in chunks {
            cutter.push(chunk, &mut deliver);
        }
        cutter.finish(&mut deliver);
        cutter.finish(&mut deliver);
        lines
    }

    #[test]
    fn lines_are_put_together_across_chunks_for_each_stream() {
        let lines = cut(&[
            chunk(Stream::Stdout, 1, b"a\nb"),
            chunk(Stream::Stderr, 2, b"x\xff\r\n\n"),
            chunk(Stream::Stdout, 3, b"c\nopen"),
        ]);
        assert_eq!(
            lines,
            [
                (Stream::Stdout, 1, b"a".to_vec(), true),
                (Stream::Stderr, 2, b"x\xff\r".to_vec(), true),
                (Stream::Stderr, 2, b"".to_vec(), true),
                (Stream::Stdout, 1, b"bc".to_vec(), true),
                (Stream::Stdout, 3, b"open".to_vec(), false),
            ]
        );
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let chunk = chunk(Stream::Stdout, 0, &vec![b'x'; LONGEST / 2]);
        let lines = cut(&[chunk.clone(), chunk.clone(), chunk]);
        let lengths: Vec<usize> = lines.iter().map(|(_, _, bytes, _)| bytes.len()).collect();
        assert_eq!(lengths, [LONGEST, LONGEST / 2]);
        assert!(lines.iter().all(|(_, _, _, ended)| !ended));
    }

    #[test]
    fn only_the_last_lines_are_delivered() {
        let mut last = LastLines::new(2);
        for number in ["1", "2", "3"] {
            last.push(Line {
                stream: Stream::Stdout,
                at: Duration::ZERO,
                bytes: number.as_bytes(),
                ended: true,
            });
        }
        let mut lines = Vec::new();
        last.deliver(&mut |line| lines.push(line.bytes.to_vec()));
        assert_eq!(lines, [b"2", b"3"]);
    }
}
