//! Stacks for processes that share our memory.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

use crate::SysError;

/// A private stack with a guard page below it.
#[derive(Debug)]
pub(crate) struct Stack {
    base: NonNull<c_void>,
    size: usize,
}

// SAFETY: needed because the stack is kept by a thread that did not map it; sound because the
// mapping belongs to the value alone and is not bound to a thread.
unsafe impl Send for Stack {}

const GUARD: usize = 64 * 1024;

impl Stack {
    /// Reserves `size` bytes, committed as they are touched.
    pub(crate) fn new(size: usize) -> Result<Self, SysError> {
        let size = size + GUARD;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no
        // memory that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK,
                -1,
                0,
            )
        };
        let failed = || SysError::last("mapping a stack");
        if base == libc::MAP_FAILED {
            return Err(failed());
        }
        let base = NonNull::new(base)
            .ok_or_else(|| SysError::new("mapping a stack", io::ErrorKind::OutOfMemory))?;
        let stack = Self { base, size };
        // SAFETY: the range is the lower end of the mapping made above, which nobody uses yet.
        if unsafe { libc::mprotect(base.as_ptr(), GUARD, libc::PROT_NONE) } != 0 {
            return Err(failed());
        }
        Ok(stack)
    }

    /// Where the stack begins: it grows downwards from here.
    pub(crate) fn top(&self) -> *mut c_void {
        // SAFETY: the result is one past the end of the mapping, as stack tops are; it is
        // aligned to a page, which is more than any ABI asks for.
        unsafe { self.base.as_ptr().byte_add(self.size) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this size, and whoever ran on it has ended:
        // every user waits for its child before it lets go of the stack.
        unsafe {
            libc::munmap(self.base.as_ptr(), self.size);
        }
    }
}
