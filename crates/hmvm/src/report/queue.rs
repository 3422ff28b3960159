//! The line in front of standard output and standard error.
//!
//! Whoever has something to say puts it in line and goes on; a thread writes it. What comes while the thread is
//! writing is written together: no timer, and no system call for each line.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use hm_vm::Stream;

use crate::output::gate::Gate;

/// Bytes in line at which output of steps has to wait.
const FULL: usize = 1 << 20;

/// Where the bytes go in the end.
pub(super) trait Outlet: Send + Sync {
    /// Writes all of it, waiting as long as it takes. What cannot be written is dropped.
    fn write(&self, stream: Stream, bytes: &[u8]);

    /// Whether nobody reads standard output any more.
    fn is_closed(&self) -> bool;

    /// The first failure other than that, once.
    fn take_error(&self) -> Option<io::Error>;
}

impl Outlet for Gate {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => self.write(stream, bytes),
            Stream::Stderr => self.say(bytes),
        }
    }

    fn is_closed(&self) -> bool {
        self.is_closed()
    }

    fn take_error(&self) -> Option<io::Error> {
        self.take_error()
    }
}

/// The line.
pub(super) struct Queue {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    outlet: Arc<dyn Outlet>,
    pending: Mutex<Pending>,
    filled: Condvar,
    emptied: Condvar,
}

/// What is in line.
#[derive(Default)]
struct Pending {
    text: Text,
    /// The writer sleeps, and is to be woken.
    idle: bool,
    /// How many wait for room.
    waiting: usize,
    /// Nothing more will come.
    ended: bool,
}

/// Bytes for the two streams, in order.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    /// Each stream with the end of its part.
    parts: Vec<(Stream, usize)>,
}

impl Text {
    fn append(&mut self, stream: Stream, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        let end = self.bytes.len();
        match self.parts.last_mut() {
            Some(last) if last.0 == stream => last.1 = end,
            _ => self.parts.push((stream, end)),
        }
    }

    fn write(&mut self, outlet: &dyn Outlet) {
        let mut start = 0;
        for (stream, end) in self.parts.drain(..) {
            if end > start {
                outlet.write(stream, &self.bytes[start..end]);
            }
            start = end;
        }
        self.bytes.clear();
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    /// A line before `outlet`, with its thread.
    ///
    /// # Errors
    ///
    /// No thread can be had.
    pub(super) fn new(outlet: Arc<dyn Outlet>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            outlet,
            pending: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        });
        let writer = thread::Builder::new().name("report".into()).spawn({
            let shared = shared.clone();
            move || shared.write_all()
        })?;
        Ok(Self {
            shared,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Puts something in line, at once. For what is little and comes from the scheduler.
    pub(super) fn put(&self, stream: Stream, write: impl FnOnce(&mut Vec<u8>)) {
        let pending = self.shared.pending();
        self.append(pending, stream, write);
    }

    /// Puts something in line once there is room. For output of steps.
    pub(super) fn put_in_turn(&self, stream: Stream, write: impl FnOnce(&mut Vec<u8>)) {
        let mut pending = self.shared.pending();
        while pending.text.bytes.len() >= FULL && !pending.ended {
            pending.waiting += 1;
            pending = self
                .shared
                .emptied
                .wait(pending)
                .unwrap_or_else(PoisonError::into_inner);
            pending.waiting -= 1;
        }
        self.append(pending, stream, write);
    }

    fn append(
        &self,
        mut pending: MutexGuard<'_, Pending>,
        stream: Stream,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        // Behind the end there is nobody who would write it.
        if pending.ended {
            return;
        }
        pending.text.append(stream, write);
        let wake = std::mem::take(&mut pending.idle);
        drop(pending);
        if wake {
            self.shared.filled.notify_one();
        }
    }

    /// Waits until all is written. A second call does nothing.
    pub(super) fn finish(&self) {
        let writer = {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.take()
        };
        if let Some(writer) = writer {
            self.shared.pending().ended = true;
            self.shared.filled.notify_one();
            self.shared.emptied.notify_all();
            // A writer that panicked has said so itself.
            drop(writer.join());
        }
    }

    /// As [`Outlet::is_closed`].
    pub(super) fn is_closed(&self) -> bool {
        self.shared.outlet.is_closed()
    }

    /// As [`Outlet::take_error`].
    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.shared.outlet.take_error()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self) {
        let mut text = Text::default();
        loop {
            let mut pending = self.pending();
            while pending.text.parts.is_empty() {
                if pending.ended {
                    return;
                }
                pending.idle = true;
                pending = self
                    .filled
                    .wait(pending)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            pending.idle = false;
            std::mem::swap(&mut text, &mut pending.text);
            let waiting = pending.waiting > 0;
            drop(pending);
            if waiting {
                self.emptied.notify_all();
            }
            text.write(&*self.outlet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::Memory;

    #[test]
    fn no_line_is_lost_and_those_of_one_thread_keep_their_order() {
        const THREADS: usize = 4;
        const LINES: usize = 50_000;
        let memory = Arc::new(Memory::default());
        let queue = Queue::new(memory.clone()).expect("a thread");
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let queue = &queue;
                scope.spawn(move || {
                    for number in 0..LINES {
                        queue.put_in_turn(Stream::Stdout, |bytes| {
                            bytes.extend_from_slice(format!("{thread} {number}\n").as_bytes());
                        });
                    }
                });
            }
        });
        queue.finish();
        let mut next = [0; THREADS];
        for line in memory.text(Stream::Stdout).lines() {
            let (thread, number) = line.split_once(' ').expect("two numbers");
            let next = &mut next[thread.parse::<usize>().expect("a number")];
            assert_eq!(number.parse(), Ok(*next));
            *next += 1;
        }
        assert_eq!(next, [LINES; THREADS]);
    }

    #[test]
    fn the_streams_are_written_in_order() {
        let memory = Arc::new(Memory::default());
        let queue = Queue::new(memory.clone()).expect("a thread");
        for (stream, text) in [
            (Stream::Stdout, "a"),
            (Stream::Stderr, "b"),
            (Stream::Stdout, "c"),
        ] {
            queue.put(stream, |bytes| bytes.extend_from_slice(text.as_bytes()));
        }
        queue.finish();
        queue.put(Stream::Stdout, |bytes| bytes.extend_from_slice(b"late"));
        assert_eq!(memory.all(), "abc");
    }
}
