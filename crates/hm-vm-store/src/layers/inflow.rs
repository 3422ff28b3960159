//! A layer's bytes on their way from the thread that decompresses them to the one that writes files.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use hm_vm_core::Cancellation;
use hm_vm_oci::{Digest, Hasher};

use super::decoder::Decoder;
use crate::error::StoreError;
use crate::import::ImportError;

/// Bytes of one buffer.
const BUFFER_BYTES: usize = 512 * 1024;

/// As many buffers are on the way.
const BUFFERS: usize = 8;

/// A layer may be so much larger than what it is compressed to, once it is larger than [`UNSUSPICIOUS`].
const RATIO: u64 = 200;

/// Smaller layers may be compressed as well as can be.
const UNSUSPICIOUS: u64 = 4 << 30;

/// Where decompressed bytes go in.
pub(super) struct Outlet {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    doubted: Arc<AtomicBool>,
}

/// Where they come out. Computes the digest of all that passes.
pub(super) struct Inflow {
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    hasher: Hasher,
    has_ended: bool,
    left: u64,
    limit: u64,
    cancel: Cancellation,
    doubted: Arc<AtomicBool>,
}

/// Both ends, for a layer of `limit` bytes at most, which is `compressed` bytes long now.
pub(super) fn flow(limit: u64, compressed: u64, cancel: Cancellation) -> (Outlet, Inflow) {
    let (full_sender, full) = sync_channel(BUFFERS);
    let (empty, empty_receiver) = channel();
    for _ in 0..BUFFERS {
        // Memory is taken when a buffer is first used.
        let _ = empty.send(Vec::new());
    }
    let limit = limit.min(compressed.saturating_mul(RATIO).max(UNSUSPICIOUS));
    let doubted = Arc::new(AtomicBool::new(false));
    let outlet = Outlet {
        full: full_sender,
        empty: empty_receiver,
        doubted: Arc::clone(&doubted),
    };
    let inflow = Inflow {
        full,
        empty,
        current: Vec::new(),
        position: 0,
        hasher: Hasher::default(),
        has_ended: false,
        left: limit,
        limit,
        cancel,
        doubted,
    };
    (outlet, inflow)
}

impl Outlet {
    /// Decompresses all. Ends early, without failure, when nobody wants it any more: unless it was
    /// [doubted](Inflow::doubt).
    pub(super) fn pour(self, mut decoder: Decoder) -> Result<(), StoreError> {
        while let Ok(mut buffer) = self.empty.recv() {
            buffer.resize(BUFFER_BYTES, 0);
            let filled = decoder.fill(&mut buffer)?;
            buffer.truncate(filled);
            if filled == 0 {
                // Nobody may be there any more.
                let _ = self.full.send(buffer);
                return Ok(());
            }
            if self.full.send(buffer).is_err() {
                break;
            }
        }
        match self.doubted.load(Ordering::Acquire) {
            true => decoder.verify(),
            false => Ok(()),
        }
    }
}

impl Inflow {
    /// Ends it, because the bytes make no sense: they may not be the right ones, which is to be said instead then.
    pub(super) fn doubt(self) {
        self.doubted.store(true, Ordering::Release);
    }

    /// Digest of all bytes that passed.
    pub(super) fn digest(self) -> Digest {
        self.hasher.finish()
    }

    fn next(&mut self) -> io::Result<()> {
        self.cancel.check().map_err(io::Error::other)?;
        let used = std::mem::take(&mut self.current);
        // The other side may be at its end.
        let _ = self.empty.send(used);
        self.position = 0;
        // An empty one is the end; without it, the other side failed, and says why.
        let cut = |_| io::Error::from(io::ErrorKind::UnexpectedEof);
        self.current = self.full.recv().map_err(cut)?;
        self.has_ended = self.current.is_empty();
        let length = self.current.len() as u64;
        self.left = self.left.checked_sub(length).ok_or_else(|| {
            io::Error::other(ImportError::LimitExceeded {
                limit: self.limit,
                unit: "bytes",
            })
        })?;
        self.hasher.update(&self.current);
        Ok(())
    }
}

impl Read for Inflow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() && !self.has_ended {
            self.next()?;
        }
        let rest = &self.current[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}
