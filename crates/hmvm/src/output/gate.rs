//! Writes output so that a reader who is slow, stuck or gone never holds up the end.
//!
//! A write to a full pipe would block the whole program, and with it the time limit and Ctrl-C.
//! So each piece waits until it fits; the wait ends when the command is cancelled or its time is
//! over, and what nobody reads is then dropped. Before that, nothing is dropped: the command is
//! held back. A reader who is gone (`| head -1`) cancels the command.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hm_vm::{CancelCause, Cancellation, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdout};
use rustix::termios::isatty;

/// Size of a piece: what a pipe that is ready is sure to take without blocking.
const PIECE: usize = 4096;

/// How often a writer that is held up looks whether it should go on waiting.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// A look that does not wait.
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// The way out for output and for events.
#[derive(Debug)]
pub(crate) struct Gate {
    cancel: Cancellation,
    limit: Option<Duration>,
    deadline: OnceLock<Instant>,
    closed: AtomicBool,
    /// Something was dropped: the reader is stuck, and is not waited for again.
    stuck: AtomicBool,
    error: Mutex<Option<io::Error>>,
    /// Whole chunks of several threads do not mix. Holds whether the last byte ended a line.
    at_line_start: Mutex<bool>,
}

impl Gate {
    /// A gate whose reader going away cancels `cancel`.
    pub(crate) fn new(cancel: Cancellation, limit: Option<Duration>) -> Self {
        Self {
            cancel,
            limit,
            deadline: OnceLock::new(),
            closed: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            error: Mutex::new(None),
            at_line_start: Mutex::new(true),
        }
    }

    /// The command begins: its time counts from now.
    pub(crate) fn start_clock(&self) {
        if let Some(limit) = self.limit {
            self.deadline.get_or_init(|| Instant::now() + limit);
        }
    }

    /// Whether the reader of the output went away.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The first failure to write, other than a reader who went away.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Writes `bytes` to a stream, whole and in order.
    pub(crate) fn write(&self, stream: Stream, bytes: &[u8]) {
        if let Err(errno) = self.write_in_turn(stream, bytes) {
            self.stop(errno);
        }
    }

    /// Writes to standard error what the program itself says. That nobody can see it is no failure.
    pub(crate) fn say(&self, bytes: &[u8]) {
        let _unseen = self.write_in_turn(Stream::Stderr, bytes);
    }

    fn write_in_turn(&self, stream: Stream, bytes: &[u8]) -> Result<(), Errno> {
        let mut at_line_start = self
            .at_line_start
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(&last) = bytes.last() {
            *at_line_start = last == b'\n';
        }
        if self.is_closed() {
            return Ok(());
        }
        let file = match stream {
            Stream::Stdout => stdout(),
            Stream::Stderr => stderr(),
        };
        self.write_to(file, bytes)
    }

    /// Ends a line that the command left open, so that what follows on the same terminal begins
    /// on a line of its own.
    pub(crate) fn end_line(&self) {
        let open = !*self
            .at_line_start
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if open && isatty(stdout()) && isatty(stderr()) {
            self.write(Stream::Stderr, b"\n");
        }
    }

    fn write_to(&self, file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            if !self.wait(file)? {
                return Ok(());
            }
            let piece = bytes.get(..PIECE).unwrap_or(bytes);
            match rustix::io::write(file, piece) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Waits until `file` takes a piece. `false` when what is left should be dropped.
    fn wait(&self, file: BorrowedFd<'_>) -> Result<bool, Errno> {
        loop {
            let stuck = self.stuck.load(Ordering::Relaxed);
            let patience = if stuck { AT_ONCE } else { PATIENCE };
            let mut files = [PollFd::from_borrowed_fd(file, PollFlags::OUT)];
            match poll(&mut files, Some(&patience)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(errno),
            }
            let late = self.deadline.get().is_some_and(|end| Instant::now() > *end);
            if stuck || late || self.cancel.cause().is_some() {
                self.stuck.store(true, Ordering::Relaxed);
                return Ok(false);
            }
        }
    }

    fn stop(&self, errno: Errno) {
        if errno == Errno::PIPE {
            self.closed.store(true, Ordering::Release);
        } else {
            let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
            error.get_or_insert_with(|| errno.into());
        }
        let reason = "its output cannot be written".to_owned();
        self.cancel.cancel(CancelCause::Other(reason));
    }
}
