//! Recording output while it flows to the user.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hm_vm_core::{OutputDecoder, OutputSink, Stream};
use tokio::sync::Notify;

use super::mask::{Mask, Masker};
use super::writer::{Destination, LogWriter, RecordedOutput};

/// Output is readable for others so long after it was written at the latest.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

/// A sink that hides secrets, records everything, and passes it on, as lines or bytes, as the user's
/// sink takes it.
///
/// Memory is constant. A log that cannot be written is given up: the command goes on, and
/// [`finish`](Self::finish) says why.
pub(crate) struct Recorder<'a> {
    user: &'a dyn OutputSink,
    state: Mutex<State<'a>>,
    dirty: Notify,
}

struct State<'a> {
    maskers: Option<[Masker; 2]>,
    output: Output<'a>,
    /// Something was written since the last flush.
    dirty: bool,
}

/// Behind the masks.
struct Output<'a> {
    writer: LogWriter<'a>,
    decoder: OutputDecoder,
}

impl Output<'_> {
    /// Returns whether there is something to flush.
    fn put(&mut self, stream: Stream, bytes: &[u8], user: &dyn OutputSink) -> bool {
        if bytes.is_empty() {
            return false;
        }
        let written = self.writer.write(stream, &[bytes]);
        self.decoder.push(stream, bytes, user);
        written
    }
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(
        to: Destination<'a>,
        mask: Option<&Arc<Mask>>,
        user: &'a dyn OutputSink,
    ) -> Self {
        let state = State {
            maskers: mask.map(|mask| [Masker::new(mask), Masker::new(mask)]),
            output: Output {
                writer: LogWriter::new(to),
                decoder: OutputDecoder::new(),
            },
            dirty: false,
        };
        Self {
            user,
            state: Mutex::new(state),
            dirty: Notify::new(),
        }
    }

    /// Lets readers of the log see what is written, time and again. Never returns, and does nothing while
    /// nothing is written.
    pub(crate) async fn flush_now_and_then(&self) -> Infallible {
        loop {
            self.dirty.notified().await;
            tokio::time::sleep(FLUSH_AFTER).await;
            let mut state = self.state();
            state.dirty = false;
            state.output.writer.flush();
        }
    }

    /// Delivers the rest to the user, at the end of the command, whatever the end was.
    pub(crate) fn flush(&self) {
        let mut state = self.state();
        let State {
            maskers, output, ..
        } = &mut *state;
        for (stream, masker) in STREAMS.into_iter().zip(maskers.iter_mut().flatten()) {
            output.put(stream, masker.finish(), self.user);
        }
        output.decoder.finish(self.user);
    }

    /// Ends the recording. The second part says why the output is not stored, if it is not.
    pub(crate) fn finish(self) -> (RecordedOutput, Vec<String>) {
        self.state().output.writer.finish()
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, stream: Stream, line: &str) {
        let mut state = self.state();
        if state.maskers.is_some() {
            // A value may go beyond the line.
            self.mask(&mut state, stream, format!("{line}\n").as_bytes());
            return;
        }
        let written = state.output.writer.write(stream, &[line.as_bytes(), b"\n"]);
        self.wake(&mut state, written);
        self.user.on_line(stream, line);
    }

    fn mask(&self, state: &mut State<'_>, stream: Stream, bytes: &[u8]) {
        let State {
            maskers, output, ..
        } = &mut *state;
        let bytes = match maskers {
            None => bytes,
            Some(maskers) => maskers[place(stream)].push(bytes),
        };
        let written = output.put(stream, bytes, self.user);
        self.wake(state, written);
    }

    fn wake(&self, state: &mut State<'_>, written: bool) {
        if written && !state.dirty {
            state.dirty = true;
            self.dirty.notify_one();
        }
    }
}

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

fn place(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

impl OutputSink for Recorder<'_> {
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
        self.mask(&mut self.state(), stream, bytes);
    }
}

impl Drop for State<'_> {
    fn drop(&mut self) {
        // The command was dropped in its course: what it wrote last belongs to its log.
        for (stream, masker) in STREAMS.into_iter().zip(self.maskers.iter_mut().flatten()) {
            self.output.writer.write(stream, &[masker.finish()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use hm_vm_core::Secret;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl OutputSink for Lines {
        fn on_stdout(&self, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }

        fn on_stderr(&self, line: &str) {
            self.on_stdout(line);
        }
    }

    /// Backends that know the minimum of the contract deliver lines.
    #[test]
    fn a_secret_is_found_over_lines_that_come_one_by_one() {
        let secret = Secret::new(b"one\nx\ntwo".to_vec());
        let mask = Mask::new([("s".to_owned(), &secret)]).unwrap();
        let lines = Lines::default();
        let recorder = Recorder::new(Destination::default(), mask.as_ref(), &lines);
        for line in ["one", "x", "two", "", "one", "y"] {
            recorder.on_stdout(line);
        }
        recorder.flush();
        let (output, problems) = recorder.finish();
        assert!(problems.is_empty());
        assert_eq!(*lines.0.lock().unwrap(), ["***", "", "one", "y"]);
        assert_eq!(output.bytes, 11);
    }
}
