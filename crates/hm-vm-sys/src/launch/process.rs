//! A started process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::SysError;
use crate::userns::wait_for;

/// How a command ended, as init reports it.
///
/// The report comes from inside the VM, where the command could forge it: it says nothing but how
/// the command wants to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandEnd {
    /// It exited with this code, 0 to 255.
    Exited(u8),
    /// This signal ended it.
    Signaled(u8),
    /// It could not be executed; the errno says why.
    NotExecuted(i32),
}

impl CommandEnd {
    /// Length of a report in bytes.
    pub const LENGTH: usize = 8;

    /// Reads a report: what it is, then a number, both 32 bits in the machine's own order. `None`
    /// if it is cut short or makes no sense.
    pub fn parse(report: &[u8]) -> Option<Self> {
        let (kind, value) = report.get(..Self::LENGTH)?.split_at(4);
        let kind = u32::from_ne_bytes(kind.try_into().ok()?);
        let value = i32::from_ne_bytes(value.try_into().ok()?);
        match kind {
            1 => Some(Self::Exited(u8::try_from(value).ok()?)),
            2 => Some(Self::Signaled(u8::try_from(value).ok()?)),
            3 => Some(Self::NotExecuted(value)),
            _ => None,
        }
    }
}

/// What all processes of a VM used, as the kernel adds it up for those that were waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// User and system time.
    pub cpu: Duration,
    /// The largest resident set of a single process, in bytes.
    pub largest_process_bytes: u64,
    /// Bytes written to storage, counted when a page of a file becomes dirty.
    pub written_bytes: u64,
}

/// Init of a VM. Dropping it kills the VM and waits until the kernel has ended all of it.
#[derive(Debug)]
pub struct Process {
    pub(super) pid: libc::pid_t,
    pub(super) pidfd: OwnedFd,
    pub(super) status: OwnedFd,
    pub(super) gate: Option<OwnedFd>,
    pub(super) reaped: bool,
}

impl Process {
    /// Its process id, as we see it.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Readable once init, and with it every process of the VM, has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Lets a gated command begin. A second call does nothing.
    ///
    /// # Errors
    ///
    /// When init is gone.
    pub fn open_gate(&mut self) -> Result<(), SysError> {
        if let Some(gate) = self.gate.take() {
            rustix::io::write(&gate, b"g")
                .map_err(|errno| SysError::new("letting the command begin", errno))?;
        }
        Ok(())
    }

    /// Sends SIGTERM to every process of the VM but init. Does nothing when init has ended.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Sends SIGHUP to every process of the VM but init: its terminal is gone. Does nothing when
    /// init has ended.
    pub fn hang_up(&self) {
        self.signal(libc::SIGHUP);
    }

    /// Kills the VM. Does nothing when it has ended.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: no pointers but a null one, which is allowed. The descriptor keeps the id from
        // meaning another process.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            );
        }
    }

    /// The report of init. Call it once the VM has ended: it does not wait.
    ///
    /// `None` means that init was killed, or its report cannot be understood: how the command
    /// ended is not known.
    pub fn command_end(&self) -> Option<CommandEnd> {
        let mut report = [0; CommandEnd::LENGTH];
        let length = rustix::io::read(&self.status, &mut report).ok()?;
        CommandEnd::parse(&report[..length])
    }

    /// Waits for init, which must have ended or been killed: it blocks otherwise. `None` when
    /// another part of the program reaped it first, or on a second call.
    pub fn reap(&mut self) -> Option<ProcessUsage> {
        if self.reaped {
            return None;
        }
        self.reaped = true;
        loop {
            // SAFETY: `rusage` is plain data, valid when zeroed, which wait4 fills in; a null
            // status is allowed; the pid is our child, not waited for yet.
            let (result, usage) = unsafe {
                let mut usage: libc::rusage = std::mem::zeroed();
                let result =
                    libc::wait4(self.pid, std::ptr::null_mut(), libc::__WALL, &raw mut usage);
                (result, usage)
            };
            if result == self.pid {
                return Some(usage_of(&usage));
            }
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return None;
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            wait_for(self.pid);
        }
    }
}

/// Units of `ru_maxrss` and `ru_oublock`, by getrusage(2).
const KIB: u64 = 1024;
const BLOCK: u64 = 512;

fn usage_of(usage: &libc::rusage) -> ProcessUsage {
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs())
            + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    ProcessUsage {
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        largest_process_bytes: usage.ru_maxrss.unsigned_abs() * KIB,
        written_bytes: usage.ru_oublock.unsigned_abs() * BLOCK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_makes_no_sense_is_no_report() {
        let report = |kind: u32, value: i32| {
            let bytes = [kind.to_ne_bytes(), value.to_ne_bytes()].concat();
            CommandEnd::parse(&bytes)
        };
        assert_eq!(report(1, 255), Some(CommandEnd::Exited(255)));
        assert_eq!(report(2, 9), Some(CommandEnd::Signaled(9)));
        assert_eq!(report(3, 2), Some(CommandEnd::NotExecuted(2)));
        assert_eq!(report(1, 256), None);
        assert_eq!(report(1, -1), None);
        assert_eq!(report(0, 0), None);
        assert_eq!(CommandEnd::parse(&[1, 0, 0]), None);
    }
}
