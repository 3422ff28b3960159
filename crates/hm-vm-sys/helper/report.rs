//! What the host is told.

use crate::account::{Counted, Usage};
use crate::calls::{self, PollFd};
use crate::frames::{ERRORS, INPUT, NONCE, OUTPUT};
use crate::numbers::*;

const SIZE: usize = 64;

/// How a job ended.
#[derive(Default)]
pub struct Report {
    kind: u32,
    value: i32,
    numbers: [u64; 5],
    about: u32,
}

impl Report {
    pub fn new(kind: u32, value: i32) -> Self {
        Self {
            kind,
            value,
            ..Self::default()
        }
    }

    pub fn of_status(status: i32) -> Self {
        match status & 0x7F {
            0 => Self::new(crate::EXITED, (status >> 8) & 0xFF),
            signal => Self::new(crate::SIGNALED, signal),
        }
    }

    pub fn about(mut self, index: usize) -> Self {
        self.about = index as u32;
        self
    }

    pub fn with_usage(mut self, usage: &Usage, before: &Counted, after: &Counted) -> Self {
        // The peak of the whole VM is this command's only if it grew meanwhile.
        let peak = if after.peak > before.peak {
            after.peak.max(usage.largest)
        } else {
            usage.largest
        };
        self.numbers = [
            usage.cpu_ns,
            peak,
            usage.written,
            after.oom_kills.saturating_sub(before.oom_kills),
            after.refused_forks.saturating_sub(before.refused_forks),
        ];
        self
    }

    /// Ends both streams of output. On standard output, the report follows.
    pub fn send(&self, nonce: &[u8; NONCE]) {
        let mut bytes = [0; NONCE + SIZE];
        let (first, report) = bytes.split_at_mut(NONCE);
        first.copy_from_slice(nonce);
        report[..4].copy_from_slice(&self.kind.to_le_bytes());
        report[4..8].copy_from_slice(&self.value.to_le_bytes());
        for (place, number) in report[8..48].chunks_exact_mut(8).zip(self.numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        report[48..52].copy_from_slice(&self.about.to_le_bytes());
        emit(ERRORS, nonce);
        emit(OUTPUT, &bytes);
    }
}

/// Writes all of it. While the host does not read, its end is waited for too.
pub fn emit(stream: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let mut fds = [PollFd::new(stream, POLLOUT), PollFd::new(INPUT, 0)];
        calls::poll(&mut fds, None);
        let [output, input] = fds;
        if input.has(POLLHUP | POLLERR) {
            calls::exit(0);
        }
        if !output.has(!0) {
            continue;
        }
        // No more than a pipe with some room takes at once: writing does not wait.
        match calls::write(stream, &bytes[..bytes.len().min(4096)]) {
            Ok(length) => bytes = &bytes[length..],
            Err(EINTR | EAGAIN) => {}
            // Nobody is there to be told.
            Err(_) => calls::exit(0),
        }
    }
}
