//! Writing a log.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use hm_vm_core::Stream;
use zstd::stream::write::Encoder;

use super::files::{LogFiles, NewLog, cannot_link, create_at};
use super::{END, STDERR, STDOUT};

/// Fast, and still a tenth of the size for what compilers write.
const LEVEL: i32 = 1;

/// Where output is to be recorded.
#[derive(Clone, Copy, Default)]
pub(crate) struct Destination<'a> {
    /// In a registry, under a key.
    pub(crate) stored: Option<(&'a LogFiles, &'a str)>,
    /// In a file of the caller's.
    pub(crate) shown: Option<&'a Path>,
}

impl Destination<'_> {
    pub(crate) fn is_nowhere(&self) -> bool {
        self.stored.is_none() && self.shown.is_none()
    }
}

/// Writes what it is given to a log. A log that cannot be written is given up.
pub(super) struct LogWriter<'a> {
    to: Destination<'a>,
    started: SystemTime,
    clock: Instant,
    bytes: u64,
    log: Log,
    problems: Vec<String>,
}

/// The file appears with the first byte: most commands that are skipped later say nothing.
enum Log {
    None,
    Open(Box<OpenLog>),
    Ended,
}

struct OpenLog {
    file: LogFile,
    encoder: Encoder<'static, File>,
}

/// Which names the file has.
enum LogFile {
    /// In the registry, and maybe the caller's as well.
    Stored(Temporary),
    /// The caller's alone.
    Shown,
}

/// The end of what a command wrote.
#[derive(Debug, Default)]
pub(crate) struct RecordedOutput {
    /// Bytes of output.
    pub(crate) bytes: u64,
    /// Removed on drop, unless published.
    log: Option<Temporary>,
    /// Output that is to be stored, and is in the caller's file alone.
    elsewhere: Option<Elsewhere>,
}

#[derive(Debug)]
struct Elsewhere {
    files: LogFiles,
    key: String,
    path: PathBuf,
}

/// A file that goes when this is dropped. The lock on it is held by the encoder, later by `lock`.
#[derive(Debug)]
struct Temporary {
    files: LogFiles,
    name: String,
    path: PathBuf,
    lock: Option<File>,
    keep: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing to do about a failure: the next open of the registry tries again.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

impl<'a> LogWriter<'a> {
    /// The command begins now.
    pub(super) fn new(to: Destination<'a>) -> Self {
        Self {
            to,
            started: SystemTime::now(),
            clock: Instant::now(),
            bytes: 0,
            log: if to.is_nowhere() {
                Log::Ended
            } else {
                Log::None
            },
            problems: Vec::new(),
        }
    }

    /// Adds one record, of all `parts` together. Returns whether there is something to flush.
    pub(super) fn write(&mut self, stream: Stream, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.bytes += length as u64;
        if length == 0 || matches!(self.log, Log::Ended) {
            return false;
        }
        let written = self.try_write(stream, length, parts);
        self.give_up_on(written)
    }

    /// Makes what was written readable for others.
    pub(super) fn flush(&mut self) {
        if let Log::Open(open) = &mut self.log {
            let flushed = open.encoder.flush();
            self.give_up_on(flushed);
        }
    }

    /// Ends the log. A second call returns nothing.
    pub(super) fn finish(&mut self) -> (RecordedOutput, Vec<String>) {
        let mut output = RecordedOutput {
            bytes: self.bytes,
            ..RecordedOutput::default()
        };
        if let Log::Open(open) = std::mem::replace(&mut self.log, Log::Ended) {
            match open.finish(self.bytes) {
                Ok(LogFile::Stored(temporary)) => output.log = Some(temporary),
                Ok(LogFile::Shown) => output.elsewhere = self.elsewhere(),
                Err(error) => self.problem(&error),
            }
        }
        (output, std::mem::take(&mut self.problems))
    }

    fn elsewhere(&self) -> Option<Elsewhere> {
        let (files, key) = self.to.stored?;
        Some(Elsewhere {
            files: files.clone(),
            key: key.to_owned(),
            path: self.to.shown?.to_owned(),
        })
    }

    fn give_up_on(&mut self, result: io::Result<()>) -> bool {
        if let Err(error) = &result {
            self.problem(error);
            self.log = Log::Ended;
        }
        result.is_ok()
    }

    fn problem(&mut self, error: &io::Error) {
        self.problems.push(match (self.to.stored, self.to.shown) {
            (None, Some(path)) => not_shown(path, error),
            _ => format!("the output of this command cannot be stored: {error}"),
        });
    }

    fn try_write(&mut self, stream: Stream, length: usize, parts: &[&[u8]]) -> io::Result<()> {
        if matches!(self.log, Log::None) {
            self.log = Log::Open(Box::new(self.create()?));
        }
        let Log::Open(open) = &mut self.log else {
            return Ok(());
        };
        let millis = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut head = [0u8; 13];
        head[0] = match stream {
            Stream::Stdout => STDOUT,
            Stream::Stderr => STDERR,
        };
        let length = u32::try_from(length).map_err(io::Error::other)?;
        head[1..5].copy_from_slice(&length.to_le_bytes());
        head[5..].copy_from_slice(&millis.to_le_bytes());
        open.encoder.write_all(&head)?;
        parts
            .iter()
            .try_for_each(|part| open.encoder.write_all(part))
    }

    fn create(&mut self) -> io::Result<OpenLog> {
        let (file, names) = match self.to.stored {
            Some((files, key)) => self.create_stored(files, key)?,
            None => {
                let path = self.to.shown.unwrap_or(Path::new(""));
                (create_at(path, self.started)?, LogFile::Shown)
            }
        };
        let mut encoder = Encoder::new(file, LEVEL)?;
        encoder.include_checksum(true)?;
        Ok(OpenLog {
            file: names,
            encoder,
        })
    }

    /// Creates a log of the registry, and gives it the caller's name as well.
    fn create_stored(&mut self, files: &LogFiles, key: &str) -> io::Result<(File, LogFile)> {
        let NewLog { name, path, file } = files.create(key, self.started)?;
        let temporary = Temporary {
            files: files.clone(),
            name,
            path,
            lock: None,
            keep: false,
        };
        let Some(shown) = self.to.shown else {
            return Ok((file, LogFile::Stored(temporary)));
        };
        let problem = match std::fs::hard_link(&temporary.path, shown) {
            Ok(()) => return Ok((file, LogFile::Stored(temporary))),
            Err(error) if cannot_link(&error) => match create_at(shown, self.started) {
                Ok(file) => return Ok((file, LogFile::Shown)),
                Err(error) => error,
            },
            Err(error) => error,
        };
        self.problems.push(not_shown(shown, &problem));
        Ok((file, LogFile::Stored(temporary)))
    }
}

fn not_shown(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    format!("the output of this command cannot be written to {path}: {error}")
}

impl Drop for LogWriter<'_> {
    fn drop(&mut self) {
        // What was written so far is all that there will ever be: the caller's file is complete.
        let (_, problems) = self.finish();
        for problem in problems {
            tracing::debug!("{problem}");
        }
    }
}

impl OpenLog {
    fn finish(mut self, bytes: u64) -> io::Result<LogFile> {
        self.encoder.write_all(&[END])?;
        self.encoder.write_all(&bytes.to_le_bytes())?;
        let file = self.encoder.finish()?;
        if let LogFile::Stored(temporary) = &mut self.file {
            temporary.lock = Some(file);
        }
        Ok(self.file)
    }
}

impl RecordedOutput {
    /// The name that the entry's row must carry.
    pub(crate) fn log(&self) -> Option<&str> {
        self.log.as_ref().map(|log| log.name.as_str())
    }

    /// Whether [`copy`](Self::copy) has something to do.
    pub(crate) fn needs_copy(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// Copies what is in the caller's file alone to where it is stored. Blocks the thread.
    pub(crate) fn copy(&mut self) -> io::Result<()> {
        let Some(Elsewhere { files, key, path }) = self.elsewhere.take() else {
            return Ok(());
        };
        let NewLog { name, path, file } = files.copy_in(&key, &path)?;
        self.log = Some(Temporary {
            files,
            name,
            path,
            lock: Some(file),
            keep: false,
        });
        Ok(())
    }

    /// Takes over a log that another machine has recorded for this key, by copying it. Blocks the thread.
    pub(crate) fn adopt(files: &LogFiles, key: &str, path: &Path, bytes: u64) -> io::Result<Self> {
        let mut output = Self {
            bytes,
            log: None,
            elsewhere: Some(Elsewhere {
                files: files.clone(),
                key: key.to_owned(),
                path: path.to_owned(),
            }),
        };
        output.copy()?;
        Ok(output)
    }

    /// Keeps the file, now that the row is there.
    pub(crate) fn publish(mut self) {
        let Some(mut log) = self.log.take() else {
            return;
        };
        if let Err(error) = log.files.publish(&log.name) {
            // It is found in its temporary place as well, and moved at the next open.
            tracing::warn!(log = log.name, %error, "failed to move a log to its place");
        }
        log.keep = true;
    }
}
