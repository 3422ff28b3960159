//! Bytes from one thread to another, bounded. One side blocks, the other is asynchronous.
//!
//! The blocking side may be a process that shares our memory: it needs nothing but the memory, no thread of its own
//! and no file.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, Bytes};
use tokio::sync::Notify;

use crate::OciError;

/// A writer waits when this much is on the way.
const MOST_BYTES: usize = 512 << 10;

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the blocking side.
    blocking: Condvar,
    /// Wakes the asynchronous side, of which there is one.
    asynchronous: Notify,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    /// How the writer ended.
    end: Option<Result<(), OciError>>,
    reader_is_gone: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, outcome: Result<(), OciError>) {
        self.lock().end.get_or_insert(outcome);
        self.wake();
    }

    fn reader_leaves(&self) {
        let mut state = self.lock();
        state.reader_is_gone = true;
        state.chunks.clear();
        state.bytes = 0;
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        self.blocking.notify_one();
        self.asynchronous.notify_one();
    }
}

impl State {
    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.len();
        Some(chunk)
    }

    fn is_full(&self) -> bool {
        self.bytes >= MOST_BYTES
    }
}

/// A pipe that is written by a task and read by a thread.
pub(super) fn to_thread() -> (AsyncWriter, BlockingReader) {
    let shared = Arc::new(Shared::default());
    let reader = BlockingReader {
        shared: Arc::clone(&shared),
        current: Bytes::new(),
    };
    (AsyncWriter(shared), reader)
}

/// A pipe that is written by a thread and read by a task.
pub(super) fn to_task() -> (BlockingWriter, AsyncReader) {
    let shared = Arc::new(Shared::default());
    (BlockingWriter(Arc::clone(&shared)), AsyncReader(shared))
}

/// The other side is gone.
#[derive(Debug)]
pub(super) struct Gone;

/// The task's side of [`to_thread`]. Dropped without [`end`](Self::end), the reader sees a failure.
#[derive(Debug)]
pub(super) struct AsyncWriter(Arc<Shared>);

impl AsyncWriter {
    /// Waits for room, then writes.
    pub(super) async fn write(&self, chunk: Bytes) -> Result<(), Gone> {
        loop {
            {
                let mut state = self.0.lock();
                if state.reader_is_gone {
                    return Err(Gone);
                }
                if !state.is_full() {
                    state.push(chunk);
                    break;
                }
            }
            self.0.asynchronous.notified().await;
        }
        self.0.blocking.notify_one();
        Ok(())
    }

    /// Nothing more comes.
    pub(super) fn end(&self, outcome: Result<(), OciError>) {
        self.0.end(outcome);
    }
}

impl Drop for AsyncWriter {
    fn drop(&mut self) {
        self.0.end(Err(super::runtime::broken()));
    }
}

/// The thread's side of [`to_thread`].
#[derive(Debug)]
pub(super) struct BlockingReader {
    shared: Arc<Shared>,
    current: Bytes,
}

impl BlockingReader {
    /// The next bytes; none at the end.
    fn next(&self) -> io::Result<Bytes> {
        let mut state = self.shared.lock();
        loop {
            if let Some(chunk) = state.pop() {
                drop(state);
                self.shared.asynchronous.notify_one();
                return Ok(chunk);
            }
            match &mut state.end {
                Some(Ok(())) => return Ok(Bytes::new()),
                Some(end) => {
                    let again = Err(super::runtime::broken());
                    return Err(match std::mem::replace(end, again) {
                        Err(error) => io::Error::other(error),
                        Ok(()) => io::ErrorKind::UnexpectedEof.into(),
                    });
                }
                None => {
                    let woken = self.shared.blocking.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Read for BlockingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.current.is_empty() {
            self.current = self.next()?;
            if self.current.is_empty() {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl Drop for BlockingReader {
    fn drop(&mut self) {
        self.shared.reader_leaves();
    }
}

/// The thread's side of [`to_task`]. Dropped without [`end`](Self::end), the reader sees a failure.
#[derive(Debug)]
pub(super) struct BlockingWriter(Arc<Shared>);

impl BlockingWriter {
    /// Waits for room, then writes.
    pub(super) fn write(&self, chunk: Bytes) -> Result<(), Gone> {
        let mut state = self.0.lock();
        loop {
            if state.reader_is_gone {
                return Err(Gone);
            }
            if !state.is_full() {
                state.push(chunk);
                break;
            }
            let woken = self.0.blocking.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.0.asynchronous.notify_one();
        Ok(())
    }

    /// Nothing more comes.
    pub(super) fn end(&self, outcome: Result<(), OciError>) {
        self.0.end(outcome);
    }
}

impl Drop for BlockingWriter {
    fn drop(&mut self) {
        self.0.end(Err(super::runtime::broken()));
    }
}

/// The task's side of [`to_task`].
#[derive(Debug)]
pub(super) struct AsyncReader(Arc<Shared>);

impl AsyncReader {
    /// The next bytes; none at the end.
    pub(super) async fn next(&self) -> Option<Result<Bytes, OciError>> {
        loop {
            {
                let mut state = self.0.lock();
                if let Some(chunk) = state.pop() {
                    drop(state);
                    self.0.blocking.notify_one();
                    return Some(Ok(chunk));
                }
                match state.end.take() {
                    Some(Err(error)) => return Some(Err(error)),
                    Some(Ok(())) => {
                        state.end = Some(Ok(()));
                        return None;
                    }
                    None => {}
                }
            }
            self.0.asynchronous.notified().await;
        }
    }

    /// A view from aside.
    pub(super) fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.0))
    }
}

impl Drop for AsyncReader {
    fn drop(&mut self) {
        self.0.reader_leaves();
    }
}

/// Sees from aside whether there is anything to read. Dropped, it lets the writer go: a connection that is given up
/// keeps its reader until the last byte is flushed, which may be never.
#[derive(Debug)]
pub(super) struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.reader_leaves();
    }
}

impl Watch {
    /// Nothing is there, and the writer has not ended: it is the writer's turn.
    pub(super) fn waits_for_writer(&self) -> bool {
        let state = self.0.lock();
        state.chunks.is_empty() && state.end.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap()
    }

    fn chunks() -> impl Iterator<Item = Bytes> {
        (0..200_u32).map(|number| Bytes::from(number.to_le_bytes().repeat(8 << 10)))
    }

    fn all() -> Vec<u8> {
        chunks().flatten().collect()
    }

    #[test]
    fn bytes_arrive_in_order_through_little_room() {
        let runtime = runtime();
        let (writer, mut reader) = to_thread();
        runtime.spawn(async move {
            for chunk in chunks() {
                writer.write(chunk).await.unwrap();
                assert!(writer.0.lock().bytes <= MOST_BYTES + (32 << 10));
            }
            writer.end(Ok(()));
        });
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == all());
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);

        let (writer, reader) = to_task();
        let task = runtime.spawn(async move {
            let mut read = Vec::new();
            while let Some(chunk) = reader.next().await {
                read.extend_from_slice(&chunk.unwrap());
            }
            read
        });
        chunks().for_each(|chunk| writer.write(chunk).unwrap());
        writer.end(Ok(()));
        assert!(runtime.block_on(task).unwrap() == all());
    }

    #[test]
    fn an_end_without_a_word_is_a_failure() {
        let (writer, mut reader) = to_thread();
        drop(writer);
        assert!(reader.read(&mut [0]).is_err());
        assert!(reader.read(&mut [0]).is_err());
        let (writer, reader) = to_task();
        drop(writer);
        let next = runtime().block_on(reader.next());
        assert!(next.unwrap().is_err());
    }

    #[test]
    fn a_writer_learns_that_its_reader_is_gone() {
        let (writer, reader) = to_task();
        let thread = std::thread::spawn(move || chunks().try_for_each(|chunk| writer.write(chunk)));
        drop(reader);
        assert!(thread.join().unwrap().is_err());
        let (writer, reader) = to_task();
        let thread = std::thread::spawn(move || chunks().try_for_each(|chunk| writer.write(chunk)));
        drop(reader.watch());
        assert!(thread.join().unwrap().is_err());
        drop(reader);
        let (writer, reader) = to_thread();
        let task = runtime();
        let task = task.spawn(async move {
            for chunk in chunks() {
                writer.write(chunk).await?;
            }
            Ok::<(), Gone>(())
        });
        drop(reader);
        assert!(runtime().block_on(task).unwrap().is_err());
    }
}
