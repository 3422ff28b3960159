//! Reading a log, also one that is still being written.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hm_vm_core::Stream;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::files::{Header, read_header};
use super::{END, MAX_TIME, STDERR, STDOUT};

/// Read from the file at once.
const INPUT_BYTES: usize = 32 * 1024;

/// Most that is delivered at once. A longer record comes in pieces.
const OUTPUT_BYTES: usize = 64 * 1024;

/// What a file may make us allocate for its window: 8 MiB. Ours have 512 KiB.
const MAX_WINDOW_LOG: u32 = 23;

/// Reads a recorded output, from its beginning.
///
/// Memory is bounded, whatever the file says.
pub struct LogReader {
    file: File,
    version: u8,
    started: SystemTime,
    decoder: Decoder<'static>,
    input: Buffer,
    output: Buffer,
    /// The last call filled the output: there may be more without further input.
    more_output: bool,
    frame_ended: bool,
    record: Record,
    delivered: u64,
    /// The end record was read.
    ended: bool,
    complete: bool,
}

/// A part of what a command wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Since the beginning of the command. Zero where the file does not tell: those of before version 2.
    pub at: Duration,
    /// Which stream it was written to.
    pub stream: Stream,
    /// The bytes. Lines and characters may be cut anywhere.
    pub bytes: Vec<u8>,
}

/// What comes next in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogNext {
    /// Output.
    Chunk(LogChunk),
    /// Nothing now: the writer has not gone further, or has died.
    /// [`writer_is_alive`](LogReader::writer_is_alive) tells.
    Pending,
    /// The end: nothing is missing.
    End,
}

/// Like [`LogNext`], but lent.
pub(super) enum Piece<'a> {
    Chunk(Record, &'a [u8]),
    Pending,
    End,
}

/// The record that is being delivered.
#[derive(Clone, Copy)]
pub(super) struct Record {
    pub(super) stream: Stream,
    pub(super) at: Duration,
    remaining: usize,
}

/// Bytes of which some are still to be used.
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new(size: usize) -> Self {
        Self {
            bytes: vec![0; size].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    fn unused(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Moves what is unused to the front.
    fn compact(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

impl LogReader {
    /// Opens a log.
    ///
    /// # Errors
    ///
    /// That it cannot be read; [`ErrorKind::InvalidData`] when it is no log, or one of a newer version.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(File::open(path)?)
    }

    pub(super) fn new(mut file: File) -> io::Result<Self> {
        let Header {
            version, started, ..
        } = read_header(&mut file)?;
        let started = match started {
            Some(started) => started,
            None => file.metadata()?.modified()?,
        };
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
        Ok(Self {
            file,
            version,
            started,
            decoder,
            input: Buffer::new(INPUT_BYTES),
            output: Buffer::new(OUTPUT_BYTES),
            more_output: false,
            frame_ended: false,
            record: Record {
                stream: Stream::Stdout,
                at: Duration::ZERO,
                remaining: 0,
            },
            delivered: 0,
            ended: false,
            complete: false,
        })
    }

    /// Reads on. After [`LogNext::Pending`] it may be called again, when the writer may have gone further; after
    /// [`LogNext::End`] there is nothing but that.
    ///
    /// # Errors
    ///
    /// That the file cannot be read, or is damaged. What was delivered before is sound as far as could be
    /// told.
    #[expect(
        clippy::should_implement_trait,
        reason = "no iterator: it may go on after nothing came"
    )]
    pub fn next(&mut self) -> io::Result<LogNext> {
        Ok(match self.next_piece()? {
            Piece::Chunk(Record { stream, at, .. }, bytes) => LogNext::Chunk(LogChunk {
                at,
                stream,
                bytes: bytes.to_vec(),
            }),
            Piece::Pending => LogNext::Pending,
            Piece::End => LogNext::End,
        })
    }

    /// When the command began. For files of before version 2, when they were last written.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Whether the end was reached.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Whether a living process is writing to the file. One that says no after [`LogNext::Pending`]
    /// should be followed by one more [`next`](Self::next): it may have written between the two.
    pub fn writer_is_alive(&self) -> bool {
        match self.file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(_)) => false,
            Ok(()) => {
                // Closing the file would give it up as well.
                drop(self.file.unlock());
                false
            }
        }
    }

    pub(super) fn next_piece(&mut self) -> io::Result<Piece<'_>> {
        while self.record.remaining == 0 && !self.ended {
            if !self.read_head()? {
                return Ok(Piece::Pending);
            }
        }
        if self.ended {
            return self.read_end();
        }
        if self.output.unused().is_empty() && !self.fill()? {
            return Ok(Piece::Pending);
        }
        let length = self.record.remaining.min(self.output.unused().len());
        let start = self.output.start;
        self.output.start += length;
        self.record.remaining -= length;
        self.delivered += length as u64;
        let bytes = &self.output.bytes[start..start + length];
        Ok(Piece::Chunk(self.record, bytes))
    }

    /// Reads the head of a record. `false` when it is not there yet.
    fn read_head(&mut self) -> io::Result<bool> {
        let timed = self.version > 1;
        let length = loop {
            let needed = match self.output.unused().first() {
                None => 1,
                Some(&END) => 9,
                Some(&(STDOUT | STDERR)) if timed => 13,
                Some(&(STDOUT | STDERR)) => 5,
                Some(_) => return Err(corrupt("unknown record")),
            };
            if needed > 1 && self.output.unused().len() >= needed {
                break needed;
            }
            if !self.fill()? {
                return Ok(false);
            }
        };
        let mut head = [0u8; 13];
        head[..length].copy_from_slice(&self.output.unused()[..length]);
        self.output.start += length;
        if head[0] == END {
            if number(&head[1..9]) != self.delivered {
                return Err(corrupt("its end does not fit"));
            }
            self.ended = true;
            return Ok(true);
        }
        let remaining = number(&head[1..5]);
        let at = Duration::from_millis(if timed { number(&head[5..13]) } else { 0 });
        if remaining == 0 {
            return Err(corrupt("empty record"));
        }
        if at > MAX_TIME {
            return Err(corrupt("impossible time"));
        }
        self.record = Record {
            stream: if head[0] == STDOUT {
                Stream::Stdout
            } else {
                Stream::Stderr
            },
            remaining: usize::try_from(remaining).map_err(|_| corrupt("record too long"))?,
            at,
        };
        Ok(true)
    }

    /// After the end record: what is left must be the checksum, and that must be right.
    fn read_end(&mut self) -> io::Result<Piece<'static>> {
        let trailing = || corrupt("there is something after its end");
        while !self.frame_ended {
            if !self.output.unused().is_empty() {
                return Err(trailing());
            }
            if !self.fill()? && !self.frame_ended {
                return Ok(Piece::Pending);
            }
        }
        let unused = !self.output.unused().is_empty() || !self.input.unused().is_empty();
        if unused || (!self.complete && read(&mut self.file, &mut [0])? > 0) {
            return Err(trailing());
        }
        self.complete = true;
        Ok(Piece::End)
    }

    /// Gets more output. `false` when there is none now.
    fn fill(&mut self) -> io::Result<bool> {
        self.output.compact();
        loop {
            if self.frame_ended {
                return if self.ended {
                    Ok(false)
                } else {
                    Err(corrupt("its end is missing"))
                };
            }
            if self.input.unused().is_empty() && !self.more_output {
                self.input.start = 0;
                self.input.end = read(&mut self.file, &mut self.input.bytes)?;
                if self.input.end == 0 {
                    return Ok(false);
                }
            }
            if self.decode()? > 0 {
                return Ok(true);
            }
        }
    }

    /// Decodes once. Returns how many bytes came.
    fn decode(&mut self) -> io::Result<usize> {
        let mut input = InBuffer::around(self.input.unused());
        let free = &mut self.output.bytes[self.output.end..];
        let free_bytes = free.len();
        let mut output = OutBuffer::around(free);
        let left = self.decoder.run(&mut input, &mut output)?;
        let (used, came) = (input.pos(), output.pos());
        self.input.start += used;
        self.output.end += came;
        self.frame_ended = left == 0;
        self.more_output = came == free_bytes && !self.frame_ended;
        Ok(came)
    }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("file", &self.file)
            .field("delivered", &self.delivered)
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}

fn read(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}
