//! The system-call filter that the commands of a VM run under.
//!
//! An allow-list in the spirit of Docker's default profile for a container without added
//! capabilities. What is not on it gets:
//!
//! * EPERM where we know the call and refuse it (mounting, keyrings, `bpf`, loading modules, …);
//! * ENOSYS where we do not know it, and for `clone3`, so that the C library falls back to the
//!   older call, whose arguments a filter can see;
//! * death by SIGSYS for calls of another architecture (i386 on x86-64): their numbers mean
//!   something else. x32 calls have numbers that no list contains, and get ENOSYS.
//!
//! The numbers are coalesced to ranges and found by binary search: about ten comparisons. Kernels
//! since 5.11 moreover remember which numbers are allowed whatever their arguments are, by running
//! the filter once for each number when it is installed: there a short filter makes the start of a
//! command cheaper, and most calls then cost nothing.

mod assembler;
mod rules;

use std::io;
use std::sync::OnceLock;

use crate::error::SysError;

/// A filter in the form that the kernel takes. Immutable.
#[derive(Clone)]
pub struct Program {
    instructions: Vec<libc::sock_filter>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} instructions)", self.instructions.len())
    }
}

impl Program {
    /// The instructions, at most 4096.
    pub fn as_raw(&self) -> &[libc::sock_filter] {
        &self.instructions
    }

    /// The argument of `seccomp(SECCOMP_SET_MODE_FILTER)`. It points into `self`, and is valid as
    /// long as that is: for ever, with [`default_filter`].
    pub fn as_sock_fprog(&self) -> libc::sock_fprog {
        libc::sock_fprog {
            // The assembler refuses programs of more than 4096 instructions.
            len: u16::try_from(self.instructions.len()).unwrap_or(0),
            filter: self.instructions.as_ptr().cast_mut(),
        }
    }

    /// Sets `no_new_privs` on the calling thread, and puts it under this filter for the rest of
    /// its life. Threads and processes that it starts inherit both. A second call stacks another
    /// filter on top.
    ///
    /// # Errors
    ///
    /// When the kernel has no seccomp filters.
    pub fn install_on_this_thread(&self) -> Result<(), SysError> {
        rustix::thread::set_no_new_privs(true)
            .map_err(|e| SysError::new("setting no_new_privs", e))?;
        let program = self.as_sock_fprog();
        // SAFETY: needed as no library offers this call. The kernel only reads `program` and the
        // instructions behind it, both of which live until it returns.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                std::ptr::from_ref(&program),
            )
        };
        if result != 0 {
            return Err(SysError::new(
                "installing the system-call filter",
                io::Error::last_os_error(),
            ));
        }
        Ok(())
    }
}

/// The default filter for this processor. Built at the first call, in some microseconds, and kept.
///
/// # Errors
///
/// On a processor for which there is no list of calls.
pub fn default_filter() -> Result<&'static Program, SysError> {
    static FILTER: OnceLock<Option<Program>> = OnceLock::new();
    FILTER
        .get_or_init(|| {
            let regions = rules::regions()?;
            assembler::assemble(rules::AUDIT_ARCH, &regions)
                .map(|instructions| Program { instructions })
        })
        .as_ref()
        .ok_or_else(|| {
            SysError::new(
                format!(
                    "building the system-call filter for {}",
                    std::env::consts::ARCH
                ),
                io::Error::from_raw_os_error(libc::ENOSYS),
            )
        })
}

#[cfg(test)]
mod tests;
