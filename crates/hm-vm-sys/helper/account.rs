//! What a command used, as far as it can be known here.

use core::ffi::CStr;

use crate::calls::{self, Ended};
use crate::numbers::O_NOCTTY;

/// Of the processes that were reaped.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu_ns: u64,
    pub largest: u64,
    pub written: u64,
}

impl Usage {
    pub fn add(&mut self, ended: &Ended) {
        // getrusage(2): KiB, and blocks of 512 bytes.
        let [user_s, user_us, system_s, system_us, largest_kib, ..] = ended.usage;
        let blocks = ended.usage[12];
        let us = (user_s + system_s) * 1_000_000 + user_us + system_us;
        self.cpu_ns += us.cast_unsigned() * 1000;
        self.largest = self.largest.max(largest_kib.cast_unsigned() * 1024);
        self.written += blocks.cast_unsigned() * 512;
    }
}

/// What the control groups of the VM have counted up to now.
#[derive(Clone, Copy, Default)]
pub struct Counted {
    pub peak: u64,
    pub oom_kills: u64,
    pub refused_forks: u64,
}

impl Counted {
    /// By either version of control groups; 0 where there is none.
    pub fn now() -> Self {
        let value = |one, other, key| find(one, key).or_else(|| find(other, key)).unwrap_or(0);
        Self {
            peak: value(
                c"/sys/fs/cgroup/memory.peak",
                c"/sys/fs/cgroup/memory/memory.max_usage_in_bytes",
                b"",
            ),
            oom_kills: value(
                c"/sys/fs/cgroup/memory.events",
                c"/sys/fs/cgroup/memory/memory.oom_control",
                b"oom_kill",
            ),
            refused_forks: value(
                c"/sys/fs/cgroup/pids.events",
                c"/sys/fs/cgroup/pids/pids.events",
                b"max",
            ),
        }
    }
}

/// The number after `key`, or the only one of the file.
fn find(path: &CStr, key: &[u8]) -> Option<u64> {
    let fd = calls::open(path, O_NOCTTY).ok()?;
    let mut buffer = [0u8; 4096];
    let length = calls::read(fd, &mut buffer);
    calls::close(fd);
    for line in buffer[..length.ok()?].split(|byte| *byte == b'\n') {
        let mut words = line.split(|byte| *byte == b' ');
        if !key.is_empty() && words.next() != Some(key) {
            continue;
        }
        return number(words.next()?);
    }
    None
}

fn number(text: &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (!text.is_empty()).then_some(number)
}
