//! Recording output while it flows to the user.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hm_vm_core::{OutputDecoder, OutputSink, Stream};
use zstd::stream::write::Encoder;

use super::files::{LogFiles, NewLog};
use super::{END, STDERR, STDOUT};

/// Fast, and still a tenth of the size for what compilers write.
const LEVEL: i32 = 1;

/// A sink that records everything and passes it on, as lines or bytes, as the user's sink takes it.
///
/// Memory is constant. A log that cannot be written is given up: the command goes on, and
/// [`finish`](Self::finish) says why.
pub(crate) struct Recorder<'a> {
    user: &'a dyn OutputSink,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    files: &'a LogFiles,
    key: &'a str,
    decoder: OutputDecoder,
    bytes: u64,
    log: Log,
}

/// The file appears with the first byte: most commands that are skipped later say nothing.
enum Log {
    None,
    Open(Box<OpenLog>),
    Failed(io::Error),
}

/// The end of what a command wrote.
#[derive(Debug)]
pub(crate) struct RecordedOutput {
    /// Bytes of output.
    pub(crate) bytes: u64,
    files: LogFiles,
    /// Removed on drop, unless published.
    log: Option<Temporary>,
}

struct OpenLog {
    temporary: Temporary,
    encoder: Encoder<'static, File>,
}

/// A file that goes when this is dropped. The lock on it is held by the encoder, later by `lock`.
#[derive(Debug)]
struct Temporary {
    name: String,
    path: PathBuf,
    lock: Option<File>,
    keep: bool,
}

impl Temporary {
    /// Lets the file be, and gives up the lock.
    fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing to do about a failure: the next open of the registry tries again.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(files: &'a LogFiles, key: &'a str, user: &'a dyn OutputSink) -> Self {
        let state = State {
            files,
            key,
            decoder: OutputDecoder::new(),
            bytes: 0,
            log: Log::None,
        };
        Self {
            user,
            state: Mutex::new(state),
        }
    }

    /// Delivers the rest to the user, at the end of the command, whatever the end was.
    pub(crate) fn flush(&self) {
        self.state().decoder.finish(self.user);
    }

    /// Ends the recording. The second part says why the output is not stored, if it is not.
    pub(crate) fn finish(self) -> (RecordedOutput, Option<io::Error>) {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let (log, error) = match state.log {
            Log::None => (None, None),
            Log::Failed(error) => (None, Some(error)),
            Log::Open(open) => match open.finish(state.bytes) {
                Ok(log) => (Some(log), None),
                Err(error) => (None, Some(error)),
            },
        };
        let output = RecordedOutput {
            bytes: state.bytes,
            files: state.files.clone(),
            log,
        };
        (output, error)
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, stream: Stream, line: &str) {
        let mut state = self.state();
        state.record(stream, &[line.as_bytes(), b"\n"]);
        self.user.on_line(stream, line);
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
        let mut state = self.state();
        state.record(stream, &[bytes]);
        state.decoder.push(stream, bytes, self.user);
    }
}

impl State<'_> {
    fn record(&mut self, stream: Stream, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return;
        }
        self.bytes += length as u64;
        if let Err(error) = self.write(stream, length, parts) {
            self.log = Log::Failed(error);
        }
    }

    fn write(&mut self, stream: Stream, length: usize, parts: &[&[u8]]) -> io::Result<()> {
        if matches!(self.log, Log::None) {
            self.log = Log::Open(Box::new(OpenLog::create(self.files, self.key)?));
        }
        let Log::Open(open) = &mut self.log else {
            return Ok(());
        };
        let length = u32::try_from(length).map_err(io::Error::other)?;
        let tag = match stream {
            Stream::Stdout => STDOUT,
            Stream::Stderr => STDERR,
        };
        open.encoder.write_all(&[tag])?;
        open.encoder.write_all(&length.to_le_bytes())?;
        parts
            .iter()
            .try_for_each(|part| open.encoder.write_all(part))
    }
}

impl OpenLog {
    fn create(files: &LogFiles, key: &str) -> io::Result<Self> {
        let NewLog { name, path, file } = files.create(key)?;
        let temporary = Temporary {
            name,
            path,
            lock: None,
            keep: false,
        };
        let mut encoder = Encoder::new(file, LEVEL)?;
        encoder.include_checksum(true)?;
        Ok(Self { temporary, encoder })
    }

    fn finish(mut self, bytes: u64) -> io::Result<Temporary> {
        self.encoder.write_all(&[END])?;
        self.encoder.write_all(&bytes.to_le_bytes())?;
        self.temporary.lock = Some(self.encoder.finish()?);
        Ok(self.temporary)
    }
}

impl RecordedOutput {
    /// The name that the entry's row must carry.
    pub(crate) fn log(&self) -> Option<&str> {
        self.log.as_ref().map(|log| log.name.as_str())
    }

    /// Keeps the file, now that the row is there.
    pub(crate) fn publish(mut self) {
        let Some(log) = self.log.take() else {
            return;
        };
        if let Err(error) = self.files.publish(&log.name) {
            // It is found in its temporary place as well, and moved at the next open.
            tracing::warn!(log = log.name, %error, "failed to move a log to its place");
        }
        log.keep();
    }
}
