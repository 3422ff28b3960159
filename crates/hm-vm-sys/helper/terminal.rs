//! A pseudo-terminal of the command's own, and what waits to go through it.

use crate::calls::{self, Result};
use crate::frames::{LARGEST_MESSAGE, OUTPUT};
use crate::memory::Memory;
use crate::numbers::*;

/// As much as a pipe takes at once without waiting (`PIPE_BUF`).
const CHUNK: usize = 4096;
/// Typed bytes that wait for a command to read them.
const QUEUE: usize = 1 << 20;

pub struct Terminal {
    master: i32,
    /// The command's end: open here, so that the kernel does not say that it is closed.
    slave: i32,
    typed: Memory,
    typed_from: usize,
    typed_to: usize,
    shown: [u8; CHUNK],
    shown_from: usize,
    shown_to: usize,
}

impl Terminal {
    /// Of a size, columns and rows as a field has them. It belongs to the command's user.
    pub fn open(size: &[u8], owner: u32) -> Result<Self> {
        const UNLOCK: usize = 0x4004_5431;
        const OPEN_PEER: usize = 0x5441;
        let flags = O_RDWR | O_NOCTTY | O_NONBLOCK;
        let master =
            calls::open(c"/dev/pts/ptmx", flags).or_else(|_| calls::open(c"/dev/ptmx", flags))?;
        let peer = (O_RDWR | O_NOCTTY | O_CLOEXEC) as usize;
        let slave = calls::control_with(master, UNLOCK, &0i32)
            .and_then(|_| calls::control(master, OPEN_PEER, peer));
        let typed = Memory::new(QUEUE);
        let (slave, typed) = match (slave, typed) {
            (Ok(slave), Ok(typed)) => (slave as i32, typed),
            (Err(errno), _) | (_, Err(errno)) => {
                calls::close(master);
                return Err(errno);
            }
        };
        let _ = calls::change_owner(slave, owner, u32::MAX);
        let terminal = Self {
            master,
            slave,
            typed,
            typed_from: 0,
            typed_to: 0,
            shown: [0; CHUNK],
            shown_from: 0,
            shown_to: 0,
        };
        terminal.resize(size);
        Ok(terminal)
    }

    /// Standard streams of the command.
    pub fn slave(&self) -> i32 {
        self.slave
    }

    pub fn resize(&self, size: &[u8]) {
        const SET_SIZE: usize = 0x5414;
        if let [c0, c1, r0, r1] = *size {
            let (columns, rows) = (u16::from_le_bytes([c0, c1]), u16::from_le_bytes([r0, r1]));
            let _ = calls::control_with(self.master, SET_SIZE, &[rows, columns, 0, 0]);
        }
    }

    /// Whether one more message of typed bytes can be taken.
    pub fn has_room(&self) -> bool {
        self.typed_to - self.typed_from + LARGEST_MESSAGE <= QUEUE
    }

    pub fn take_typed(&mut self, bytes: &[u8]) {
        if self.typed_to + bytes.len() > QUEUE {
            let (from, to) = (self.typed_from, self.typed_to);
            self.typed.bytes_mut().copy_within(from..to, 0);
            self.typed_from = 0;
            self.typed_to = to - from;
        }
        let end = (self.typed_to + bytes.len()).min(QUEUE);
        let length = end - self.typed_to;
        self.typed.bytes_mut()[self.typed_to..end].copy_from_slice(&bytes[..length]);
        self.typed_to = end;
    }

    /// What to wait for: on the master, and on standard output.
    pub fn interests(&self) -> [(i32, i16); 2] {
        let typed = if self.typed_from < self.typed_to {
            POLLOUT
        } else {
            0
        };
        if self.shown_from < self.shown_to {
            let master = if typed == 0 { -1 } else { self.master };
            [(master, typed), (OUTPUT, POLLOUT)]
        } else {
            [(self.master, typed | POLLIN), (-1, 0)]
        }
    }

    /// Moves what can be moved. None of it waits.
    pub fn relay(&mut self, master_can_take: bool, output_can_take: bool) {
        if master_can_take {
            let waiting = &self.typed.bytes()[self.typed_from..self.typed_to];
            if let Ok(length) = calls::write(self.master, waiting) {
                self.typed_from += length;
            }
        }
        if output_can_take && self.shown_from < self.shown_to {
            match calls::write(OUTPUT, &self.shown[self.shown_from..self.shown_to]) {
                Ok(length) => self.shown_from += length,
                Err(EAGAIN | EINTR) => {}
                // Nobody reads any more: nor will the report be.
                Err(_) => self.shown_from = self.shown_to,
            }
        }
        if self.shown_from == self.shown_to {
            self.shown_from = 0;
            self.shown_to = calls::read(self.master, &mut self.shown).unwrap_or(0);
        }
    }

    /// When all processes are dead: gives everything that they wrote to `emit`.
    pub fn finish(mut self, emit: impl Fn(&[u8])) {
        calls::close(self.slave);
        self.slave = -1;
        emit(&self.shown[self.shown_from..self.shown_to]);
        while let Ok(length @ 1..) = calls::read(self.master, &mut self.shown) {
            emit(&self.shown[..length]);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        calls::close(self.slave);
        calls::close(self.master);
    }
}
