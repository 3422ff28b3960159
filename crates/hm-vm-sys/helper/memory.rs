//! Memory from the kernel, and the four functions that compiled code expects to be there.

use core::ptr::NonNull;
use core::slice;

use crate::calls::{Result, map, unmap};

/// Memory of the kernel's, given back when dropped.
pub struct Memory {
    at: NonNull<u8>,
    length: usize,
}

impl Memory {
    /// `length` bytes, all zero.
    pub fn new(length: usize) -> Result<Self> {
        if length == 0 {
            return Ok(Self {
                at: NonNull::dangling(),
                length,
            });
        }
        let at = NonNull::new(map(length)?).ok_or(crate::numbers::EINVAL)?;
        Ok(Self { at, length })
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: all of it is there, written by the kernel, as long as this is.
        unsafe { slice::from_raw_parts(self.at.as_ptr(), self.length) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; borrowed alone.
        unsafe { slice::from_raw_parts_mut(self.at.as_ptr(), self.length) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: ours, and nothing has borrowed it any more.
            unsafe { unmap(self.at.as_ptr(), self.length) }
        }
    }
}

/// A list of bounded length in memory of its own.
pub struct List<T: Copy> {
    memory: Memory,
    length: usize,
    item: core::marker::PhantomData<T>,
}

impl<T: Copy> List<T> {
    /// Of at most `most` items. `T` must be a number: memory begins as zero, aligned to a page.
    pub fn new(most: usize) -> Result<Self> {
        Ok(Self {
            memory: Memory::new(most * size_of::<T>())?,
            length: 0,
            item: core::marker::PhantomData,
        })
    }

    /// What there is no room for is left out.
    pub fn push(&mut self, item: T) {
        if (self.length + 1) * size_of::<T>() <= self.memory.length {
            // SAFETY: inside of the mapping, whose alignment is a page's.
            unsafe { self.memory.at.cast::<T>().add(self.length).write(item) };
            self.length += 1;
        }
    }

    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    pub fn items(&self) -> &[T] {
        // SAFETY: so many were written.
        unsafe { slice::from_raw_parts(self.memory.at.cast().as_ptr(), self.length) }
    }

    pub fn items_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; borrowed alone.
        unsafe { slice::from_raw_parts_mut(self.memory.at.cast().as_ptr(), self.length) }
    }
}

// What follows is written so that the compiler does not turn it into calls of itself.

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: promised by the caller.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!(
            "rep movsb",
            inout("rcx") length => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
        #[cfg(not(target_arch = "x86_64"))]
        for at in 0..length {
            to.add(at).write_volatile(from.add(at).read());
        }
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: promised by the caller; in the order that overlapping memory needs.
    unsafe {
        if (to as usize).wrapping_sub(from as usize) >= length {
            return memcpy(to, from, length);
        }
        let mut at = length;
        while at > 0 {
            at -= 1;
            to.add(at).write_volatile(from.add(at).read());
        }
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    for at in 0..length {
        // SAFETY: promised by the caller.
        unsafe { to.add(at).write_volatile(value as u8) };
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, length: usize) -> i32 {
    for at in 0..length {
        // SAFETY: promised by the caller.
        let (a, b) = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, length: usize) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { memcmp(one, other, length) }
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: promised by the caller.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
