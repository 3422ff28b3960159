//! One log that is read, perhaps while it is being written.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hm_vm::Stream;
use hm_vm::output::{LogNext, LogReader};

use super::lines::{Cutter, LastLines, Line};
use super::printer::{Form, Origin};
use crate::output::gate::Gate;
use crate::output::sanitize::sanitize_path;

/// The log of one step.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    origin: Origin,
    /// Opened when the file is there: it is not made before there is output.
    reader: Option<LogReader>,
    cutter: Cutter,
    last: Option<LastLines>,
}

/// How far a log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// To its end.
    Ended,
    /// To where its writer is, or was when it died.
    Pending,
    /// There is none.
    Absent,
}

impl Source {
    /// The log at `path`; of `tail` lines, the last ones.
    pub(super) fn new(path: PathBuf, origin: Origin, tail: Option<usize>) -> Self {
        Self {
            path,
            origin,
            reader: None,
            cutter: Cutter::default(),
            last: tail.map(LastLines::new),
        }
    }

    /// Name of the step.
    pub(super) fn step(&self) -> &str {
        &self.origin.step
    }

    /// Shows what is there and was not shown.
    ///
    /// # Errors
    ///
    /// The log cannot be read, or is damaged.
    pub(super) fn advance(&mut self, form: &Form, gate: &Gate) -> anyhow::Result<Progress> {
        if self.reader.is_none() {
            self.reader = open(&self.path)?;
        }
        let Some(reader) = &mut self.reader else {
            return Ok(Progress::Absent);
        };
        self.origin.started = reader.started();
        let mut batch = Batch::new(form, gate, &self.origin);
        loop {
            let next = reader.next();
            let next =
                next.with_context(|| format!("cannot read {}", sanitize_path(&self.path)))?;
            match next {
                LogNext::Chunk(chunk) => {
                    if gate.is_closed() {
                        return Ok(Progress::Ended);
                    }
                    match &mut self.last {
                        Some(last) => self.cutter.push(&chunk, &mut |line| {
                            if form.only.is_none_or(|only| only == line.stream) {
                                last.push(line);
                            }
                        }),
                        None if form.is_raw(&self.origin, chunk.stream) => {
                            form.write_chunk(gate, &chunk);
                        }
                        None => self.cutter.push(&chunk, &mut |line| batch.add(line)),
                    }
                    batch.write();
                }
                LogNext::Pending => return Ok(Progress::Pending),
                LogNext::End => return Ok(Progress::Ended),
            }
        }
    }

    /// Shows what was held back: the last lines, and one without an end. What comes later is shown whole.
    pub(super) fn release(&mut self, form: &Form, gate: &Gate) {
        let mut batch = Batch::new(form, gate, &self.origin);
        if let Some(mut last) = self.last.take() {
            last.deliver(&mut |line| batch.add(line));
        }
        batch.write();
    }

    /// The log is over: shows a last line without an end.
    pub(super) fn finish(&mut self, form: &Form, gate: &Gate) {
        if let Some(last) = &mut self.last {
            self.cutter.finish(&mut |line| {
                if form.only.is_none_or(|only| only == line.stream) {
                    last.push(line);
                }
            });
        }
        self.release(form, gate);
        let mut batch = Batch::new(form, gate, &self.origin);
        self.cutter.finish(&mut |line| batch.add(line));
        batch.write();
    }
}

/// Lines that are written together, in order.
struct Batch<'a> {
    form: &'a Form,
    gate: &'a Gate,
    origin: &'a Origin,
    bytes: Vec<u8>,
    to: Stream,
}

impl<'a> Batch<'a> {
    fn new(form: &'a Form, gate: &'a Gate, origin: &'a Origin) -> Self {
        Self {
            form,
            gate,
            origin,
            bytes: Vec::new(),
            to: Stream::Stdout,
        }
    }

    fn add(&mut self, line: Line<'_>) {
        let start = self.bytes.len();
        match self.form.append(self.origin, line, &mut self.bytes) {
            Some(to) if to != self.to => {
                let line = self.bytes.split_off(start);
                self.write();
                self.bytes = line;
                self.to = to;
            }
            _ => {}
        }
    }

    fn write(&mut self) {
        if !self.bytes.is_empty() {
            self.gate.write(self.to, &self.bytes);
            self.bytes.clear();
        }
    }
}

fn open(path: &Path) -> anyhow::Result<Option<LogReader>> {
    match LogReader::open(path) {
        Ok(reader) => Ok(Some(reader)),
        // Not made yet, or its writer is just about to write its head.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Ok(None)
        }
        Err(error) => {
            Err(error).with_context(|| format!("cannot read the log {}", sanitize_path(path)))
        }
    }
}
