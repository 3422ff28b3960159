//! System calls behind functions that are safe to call.

use core::arch::asm;
use core::ffi::CStr;

use crate::numbers::*;

/// A failure is the kernel's number of it.
pub type Result<T> = core::result::Result<T, i32>;

/// # Safety
///
/// As the call itself: pointers must be what the kernel expects.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, a: [usize; 6]) -> isize {
    let result;
    // SAFETY: the calling convention of the kernel: rcx and r11 are lost, memory may change.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a[0],
            in("rsi") a[1],
            in("rdx") a[2],
            in("r10") a[3],
            in("r8") a[4],
            in("r9") a[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// # Safety
///
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, a: [usize; 6]) -> isize {
    let result;
    // SAFETY: the calling convention of the kernel.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a[0] as isize => result,
            in("x1") a[1],
            in("x2") a[2],
            in("x3") a[3],
            in("x4") a[4],
            in("x5") a[5],
            options(nostack),
        );
    }
    result
}

/// The call with as many arguments as are given. Unsafe as `call` is.
macro_rules! sys {
    ($number:expr $(, $argument:expr)*) => {{
        let given = [$($argument as usize),*];
        let mut all = [0usize; 6];
        let mut at = 0;
        while at < given.len() {
            all[at] = given[at];
            at += 1;
        }
        check(call($number, all))
    }};
}

fn check(result: isize) -> Result<usize> {
    if result < 0 {
        Err(-(result as i32))
    } else {
        Ok(result.cast_unsigned())
    }
}

pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: no pointers; does not return.
        let _: Result<usize> = unsafe { sys!(EXIT_GROUP, code) };
    }
}

pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: a slice of ours.
    unsafe { sys!(READ, fd, buffer.as_mut_ptr(), buffer.len()) }
}

pub fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: a slice of ours.
    unsafe { sys!(WRITE, fd, bytes.as_ptr(), bytes.len()) }
}

pub fn close(fd: i32) {
    // SAFETY: no pointers.
    let _ = unsafe { sys!(CLOSE, fd) };
}

/// Closes all but the standard streams.
pub fn close_others() {
    const FIRST: usize = 3;
    // SAFETY: no pointers.
    if unsafe { sys!(CLOSE_RANGE, FIRST, u32::MAX, 0) }.is_err() {
        // A kernel, or a filter of system calls, that does not know it.
        for fd in 3..1024 {
            close(fd);
        }
    }
}

/// `O_CLOEXEC` is added.
pub fn open_at(directory: i32, path: &CStr, flags: i32, mode: u32) -> Result<i32> {
    // SAFETY: a C string.
    let fd = unsafe { sys!(OPENAT, directory, path.as_ptr(), flags | O_CLOEXEC, mode) };
    fd.map(|fd| fd as i32)
}

pub fn open(path: &CStr, flags: i32) -> Result<i32> {
    open_at(AT_FDCWD, path, flags, 0)
}

pub fn unlink_at(directory: i32, path: &CStr, flags: i32) -> Result<usize> {
    // SAFETY: a C string.
    unsafe { sys!(UNLINKAT, directory, path.as_ptr(), flags) }
}

pub fn make_directory_at(directory: i32, path: &CStr, mode: u32) -> Result<usize> {
    // SAFETY: a C string.
    unsafe { sys!(MKDIRAT, directory, path.as_ptr(), mode) }
}

pub fn rename_at(from: i32, old: &CStr, to: i32, new: &CStr) -> Result<usize> {
    // SAFETY: C strings.
    unsafe { sys!(RENAMEAT, from, old.as_ptr(), to, new.as_ptr()) }
}

/// `u32::MAX` leaves an id as it is.
pub fn change_owner(fd: i32, uid: u32, gid: u32) -> Result<usize> {
    // SAFETY: no pointers.
    unsafe { sys!(FCHOWN, fd, uid, gid) }
}

/// Entries of a directory, as `getdents64` has them.
pub fn entries(directory: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: a slice of ours.
    unsafe { sys!(GETDENTS64, directory, buffer.as_mut_ptr(), buffer.len()) }
}

pub fn change_directory(path: &CStr) -> Result<usize> {
    // SAFETY: a C string.
    unsafe { sys!(CHDIR, path.as_ptr()) }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PollFd {
    pub fd: i32,
    pub events: i16,
    pub seen: i16,
}

impl PollFd {
    /// A negative descriptor is left out by the kernel.
    pub fn new(fd: i32, events: i16) -> Self {
        Self {
            fd,
            events,
            seen: 0,
        }
    }

    pub fn has(&self, events: i16) -> bool {
        self.seen & events != 0
    }
}

/// Waits for one of them; `seconds` at most. Returns how many there are.
pub fn poll(fds: &mut [PollFd], seconds: Option<i64>) -> usize {
    let limit = [seconds.unwrap_or(0), 0];
    let limit = seconds.map_or(core::ptr::null(), |_| limit.as_ptr());
    // SAFETY: a slice of ours, a local or no time, no signal mask.
    unsafe { sys!(PPOLL, fds.as_mut_ptr(), fds.len(), limit, 0, 8) }.unwrap_or(0)
}

pub fn set_signal_mask(mask: u64) {
    // SAFETY: a local of the size that is passed (2 sets the mask), no old mask asked for.
    let _ = unsafe { sys!(RT_SIGPROCMASK, 2, &raw const mask, 0, size_of_val(&mask)) };
}

fn signal_bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// A descriptor that blocked signals are read from.
pub fn signal_descriptor(signals: &[i32]) -> Result<i32> {
    let mask = signals
        .iter()
        .fold(0, |mask, signal| mask | signal_bit(*signal));
    // SAFETY: a local of the size that is passed.
    let fd = unsafe {
        sys!(
            SIGNALFD4,
            usize::MAX,
            &raw const mask,
            size_of_val(&mask),
            O_CLOEXEC | O_NONBLOCK
        )
    };
    fd.map(|fd| fd as i32)
}

/// Ignored signals survive exec: all get their default action.
pub fn reset_signals() {
    let default = [0usize; 4];
    for signal in 1..=LAST_SIGNAL {
        if signal != SIGKILL && signal != SIGSTOP {
            // SAFETY: a local of the kernel's layout, all zero: the default action.
            let _ = unsafe { sys!(RT_SIGACTION, signal, default.as_ptr(), 0, 8) };
        }
    }
}

/// To every process of the VM but this one.
pub fn kill_everybody(signal: i32) {
    // SAFETY: no pointers.
    let _ = unsafe { sys!(KILL, -1isize, signal) };
}

/// A process that has ended.
pub struct Ended {
    pub pid: i32,
    pub status: i32,
    /// `struct rusage`: times in seconds and microseconds (user, system), largest set in KiB, …
    pub usage: [i64; 18],
}

/// Takes one that has ended; where `wait` is not set, `None` when all others go on.
pub fn reap(wait: bool) -> Result<Option<Ended>> {
    const NO_WAIT: usize = 1;
    const ALL: usize = 0x4000_0000;
    let mut ended = Ended {
        pid: 0,
        status: 0,
        usage: [0; 18],
    };
    let flags = if wait { ALL } else { ALL | NO_WAIT };
    // SAFETY: locals of the kernel's layout.
    let pid = unsafe {
        sys!(
            WAIT4,
            -1isize,
            &raw mut ended.status,
            flags,
            ended.usage.as_mut_ptr()
        )
    }?;
    ended.pid = pid as i32;
    Ok((pid > 0).then_some(ended))
}

/// 0 in the child.
///
/// # Safety
///
/// The child has a copy of this memory, destructors included.
pub unsafe fn fork() -> Result<i32> {
    // SAFETY: a copy of this process, on a copy of its stack.
    unsafe { sys!(CLONE, SIGCHLD, 0, 0, 0, 0) }.map(|pid| pid as i32)
}

/// Returns why not.
///
/// # Safety
///
/// Both must be arrays of C strings that end with a null pointer.
pub unsafe fn execute(path: &CStr, argv: *const usize, env: *const usize) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { sys!(EXECVE, path.as_ptr(), argv, env) }
        .err()
        .unwrap_or(0)
}

pub fn new_session() {
    // SAFETY: no pointers.
    let _ = unsafe { sys!(SETSID) };
}

pub fn set_groups(groups: &[u32]) -> Result<usize> {
    // SAFETY: a slice of ours.
    unsafe { sys!(SETGROUPS, groups.len(), groups.as_ptr()) }
}

pub fn set_ids(uid: u32, gid: u32) -> Result<usize> {
    // SAFETY: no pointers.
    unsafe {
        sys!(SETRESGID, gid, gid, gid)?;
        sys!(SETRESUID, uid, uid, uid)
    }
}

/// Makes `new` a copy that survives exec.
pub fn duplicate(old: i32, new: i32) -> Result<usize> {
    // SAFETY: no pointers.
    unsafe { sys!(DUP3, old, new, 0) }
}

/// Both ends, the reading one first, that do not block.
pub fn pipe() -> Result<[i32; 2]> {
    let mut ends = [0i32; 2];
    // SAFETY: a local of two descriptors.
    unsafe { sys!(PIPE2, ends.as_mut_ptr(), O_CLOEXEC | O_NONBLOCK) }?;
    Ok(ends)
}

/// Makes writing to `fd` wait again where a command made it not to.
pub fn make_blocking(fd: i32) {
    const GET_FLAGS: usize = 3;
    const SET_FLAGS: usize = 4;
    // SAFETY: no pointers.
    unsafe {
        if let Ok(flags) = sys!(FCNTL, fd, GET_FLAGS) {
            let _ = sys!(FCNTL, fd, SET_FLAGS, flags & !(O_NONBLOCK as usize));
        }
    }
}

pub fn is_pipe(fd: i32) -> bool {
    const GET_PIPE_SIZE: usize = 1032;
    // SAFETY: no pointers.
    unsafe { sys!(FCNTL, fd, GET_PIPE_SIZE) }.is_ok()
}

/// An `ioctl` whose argument is a number.
pub fn control(fd: i32, request: usize, argument: usize) -> Result<usize> {
    // SAFETY: who calls this passes requests that take a number.
    unsafe { sys!(IOCTL, fd, request, argument) }
}

/// An `ioctl` whose argument is read from `argument`.
pub fn control_with<T>(fd: i32, request: usize, argument: &T) -> Result<usize> {
    // SAFETY: a reference of ours; who calls this passes requests that read this type.
    unsafe { sys!(IOCTL, fd, request, &raw const *argument) }
}

pub fn process_id() -> usize {
    // SAFETY: no pointers.
    unsafe { sys!(GETPID) }.unwrap_or(0)
}

/// From now on this process may be neither traced nor read by others without the capability to.
pub fn hide_from_others() {
    const SET_DUMPABLE: usize = 4;
    // SAFETY: no pointers.
    let _ = unsafe { sys!(PRCTL, SET_DUMPABLE, 0, 0, 0, 0) };
}

pub fn set_file_mask(mask: u32) {
    // SAFETY: no pointers.
    let _ = unsafe { sys!(UMASK, mask) };
}

/// A stream socket that does not block, connecting to an address as the kernel has it.
pub fn connect(family: i32, address: &[u8]) -> Result<(i32, bool)> {
    const STREAM: i32 = 1;
    // SAFETY: no pointers; then a slice of ours.
    unsafe {
        let fd = sys!(SOCKET, family, STREAM | O_CLOEXEC | O_NONBLOCK, 0)? as i32;
        match sys!(CONNECT, fd, address.as_ptr(), address.len()) {
            Ok(_) => Ok((fd, true)),
            Err(EINPROGRESS) => Ok((fd, false)),
            Err(error) => {
                close(fd);
                Err(error)
            }
        }
    }
}

/// What became of a connection attempt.
pub fn socket_error(fd: i32) -> Result<i32> {
    let (mut error, mut size) = (0i32, 4u32);
    // SAFETY: locals of the kernel's layout (1, 4: SOL_SOCKET, SO_ERROR).
    unsafe { sys!(GETSOCKOPT, fd, 1, 4, &raw mut error, &raw mut size) }?;
    Ok(error)
}

/// Memory of `length` bytes, all zero.
pub fn map(length: usize) -> Result<*mut u8> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    // SAFETY: a new mapping, at no place that is in use.
    let at = unsafe { sys!(MMAP, 0, length, READ_WRITE, PRIVATE_ANONYMOUS, -1isize, 0) }?;
    Ok(at as *mut u8)
}

/// # Safety
///
/// Nothing may use that memory any more.
pub unsafe fn unmap(at: *mut u8, length: usize) {
    // SAFETY: promised by the caller.
    let _ = unsafe { sys!(MUNMAP, at, length) };
}
