//! How bytes become lines.

use std::borrow::Cow;

use crate::sink::{OutputSink, Stream};

/// Splits a stream of bytes into lines of text.
///
/// * A line ends at `\n`, which is not part of it. A `\r` before it stays.
/// * Chunk borders change nothing: lines and UTF-8 sequences are put together across them.
/// * Bytes that are not UTF-8 become U+FFFD.
/// * A last line without `\n` is delivered by [`finish`](Self::finish).
/// * A line longer than [`MAX_LINE_BYTES`](Self::MAX_LINE_BYTES) is delivered in pieces of that
///   size (less up to three bytes, where a character would be cut), each as a line of its own.
///   Nothing is dropped, and memory stays bounded.
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Length in bytes beyond which a line is delivered in pieces: 1 MiB.
    pub const MAX_LINE_BYTES: usize = 1 << 20;

    /// A splitter at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream and delivers the lines that they complete.
    pub fn push(&mut self, mut bytes: &[u8], deliver: &mut dyn FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            if self.partial.is_empty() && line.len() <= Self::MAX_LINE_BYTES {
                deliver(&String::from_utf8_lossy(line));
            } else {
                self.extend(line, deliver);
                deliver(&String::from_utf8_lossy(&self.partial));
                self.partial.clear();
            }
        }
        self.extend(bytes, deliver);
    }

    /// Ends the stream: delivers what has no line end yet.
    pub fn finish(&mut self, deliver: &mut dyn FnMut(&str)) {
        if !self.partial.is_empty() {
            deliver(&String::from_utf8_lossy(&self.partial));
            self.partial = Vec::new();
        }
    }

    /// Adds bytes without a line end, delivering full pieces of an over-long line.
    fn extend(&mut self, mut bytes: &[u8], deliver: &mut dyn FnMut(&str)) {
        while self.partial.len() + bytes.len() > Self::MAX_LINE_BYTES {
            let room = Self::MAX_LINE_BYTES - self.partial.len();
            self.partial.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
            let cut = whole_characters(&self.partial);
            deliver(&text(&self.partial[..cut]));
            self.partial.drain(..cut);
        }
        self.partial.extend_from_slice(bytes);
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Length of `bytes` without a UTF-8 sequence that its end cuts off.
fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    for start in (tail..bytes.len()).rev() {
        let needed = match bytes[start] {
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            0x80..=0xBF => continue,
            _ => return bytes.len(),
        };
        return if start + needed > bytes.len() {
            start
        } else {
            bytes.len()
        };
    }
    bytes.len()
}

/// Delivers the two output streams of one command to a sink, as bytes or as lines, whichever the
/// sink takes. For authors of backends.
#[derive(Debug, Default)]
pub struct OutputDecoder {
    stdout: LineSplitter,
    stderr: LineSplitter,
}

impl OutputDecoder {
    /// A decoder at the beginning of both streams.
    pub fn new() -> Self {
        Self::default()
    }

    /// Delivers the next bytes of one stream.
    pub fn push(&mut self, stream: Stream, bytes: &[u8], sink: &dyn OutputSink) {
        if sink.wants_bytes() {
            sink.on_bytes(stream, bytes);
        } else {
            self.splitter(stream)
                .push(bytes, &mut |line| sink.on_line(stream, line));
        }
    }

    /// Delivers what has no line end, when both streams are over. A second call does nothing.
    pub fn finish(&mut self, sink: &dyn OutputSink) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.splitter(stream)
                .finish(&mut |line| sink.on_line(stream, line));
        }
    }

    fn splitter(&mut self, stream: Stream) -> &mut LineSplitter {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::new();
        for chunk in chunks {
            splitter.push(chunk, &mut |line| lines.push(line.to_owned()));
        }
        splitter.finish(&mut |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn keeps_empty_lines_and_a_last_line_without_end() {
        assert_eq!(split(&[b"a\n\nb"]), ["a", "", "b"]);
        assert_eq!(split(&[b"\n"]), [""]);
        assert!(split(&[b""]).is_empty());
    }

    #[test]
    fn joins_lines_and_characters_across_chunks() {
        let bytes = "grün\nweiß\n".as_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(split(&[&bytes[..cut], &bytes[cut..]]), ["grün", "weiß"]);
        }
    }

    #[test]
    fn cuts_an_over_long_line_between_characters() {
        let line = "ä".repeat(LineSplitter::MAX_LINE_BYTES);
        let lines = split(&[b"x", line.as_bytes(), b"\nend"]);
        assert_eq!(lines.last().map(String::as_str), Some("end"));
        let pieces = &lines[..lines.len() - 1];
        assert!(
            pieces
                .iter()
                .all(|piece| piece.len() <= LineSplitter::MAX_LINE_BYTES)
        );
        assert_eq!(pieces.concat(), format!("x{line}"));
    }

    proptest! {
        #[test]
        fn chunk_borders_change_nothing(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(0xC3u8), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut start = 0;
            for cut in cuts {
                chunks.push(&bytes[start..cut]);
                start = cut;
            }
            chunks.push(&bytes[start..]);
            prop_assert_eq!(split(&chunks), split(&[&bytes]));
        }
    }
}
