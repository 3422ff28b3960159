//! PID 1 of a VM: a static program of a few kilobytes without the standard library.
//!
//! Arguments: its name, options, then the command and its arguments. Options: `g` waits for a byte
//! on descriptor 4 first; `t` makes standard input the controlling terminal of the command.
//! Descriptor 3 takes the report: what happened (1 exited, 2 ended by a signal, 3 not executed)
//! and a number (exit code, signal, errno), 32 bits each.
//!
//! SIGTERM and SIGHUP are passed on to every other process. When the command has ended, init ends
//! too, and the kernel kills all that is left.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const FCNTL: usize = 72;
    pub const SETSID: usize = 112;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const FCNTL: usize = 25;
    pub const IOCTL: usize = 29;
    pub const CLOSE: usize = 57;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const SETSID: usize = 157;
    pub const PRCTL: usize = 167;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
}

// The kernel starts a program with the stack pointer at the argument count.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym main,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "mov x0, sp",
    "bl {main}",
    "brk #1",
    main = sym main,
);

/// A system call with four arguments, the most that any here takes.
///
/// # Safety
///
/// As the call itself: pointers must be what the kernel expects.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the calling convention of the kernel: rcx and r11 are lost, memory may change. The
    // fifth argument is zero for the calls that have one.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") 0,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// As above.
///
/// # Safety
///
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the calling convention of the kernel.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a as isize => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") 0,
            options(nostack),
        );
    }
    result
}

const STATUS: usize = 3;
const GATE: usize = 4;

const EXITED: u32 = 1;
const SIGNALED: u32 = 2;
const NOT_EXECUTED: u32 = 3;

const SIGHUP: isize = 1;
const SIGKILL: usize = 9;
const SIGTERM: isize = 15;
const SIGCHLD: usize = 17;
const SIGCONT: usize = 18;
const SIGSTOP: usize = 19;
const LAST_SIGNAL: usize = 64;
const EVERYBODY: usize = usize::MAX;
const SIG_SETMASK: usize = 2;
const SET_SIZE: usize = 8;
const F_SETFD: usize = 2;
const FD_CLOEXEC: usize = 1;
const TIOCSCTTY: usize = 0x540E;
const WNOHANG: usize = 1;
const PR_SET_DUMPABLE: usize = 4;

/// `struct sigaction` as the kernel has it, all zero: the default action.
#[repr(C)]
struct Action {
    fields: [usize; 4],
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: no pointers; does not return.
        unsafe {
            call(number::EXIT_GROUP, code, 0, 0, 0);
        }
    }
}

fn report(kind: u32, value: i32) {
    let message = [kind, value.cast_unsigned()];
    // SAFETY: a local of the size that is passed.
    unsafe {
        call(number::WRITE, STATUS, message.as_ptr() as usize, size_of_val(&message), 0);
    }
}

fn set_signal_mask(mask: u64) {
    // SAFETY: a local of the size that is passed, and no old mask asked for.
    unsafe {
        call(number::RT_SIGPROCMASK, SIG_SETMASK, (&raw const mask) as usize, 0, SET_SIZE);
    }
}

fn wait_at_gate() {
    let mut byte = 0u8;
    // SAFETY: one byte of a local.
    let read = unsafe { call(number::READ, GATE, (&raw mut byte) as usize, 1, 0) };
    if read != 1 {
        // Whoever was to open the gate is gone.
        exit(125);
    }
    // SAFETY: no pointers.
    unsafe {
        call(number::CLOSE, GATE, 0, 0, 0);
    }
}

/// In the child: becomes the command.
fn become_command(argv: usize, env: usize, terminal: bool) -> ! {
    let default = Action { fields: [0; 4] };
    // SAFETY: constants, a local of the kernel's layout, and the arrays that the kernel itself
    // put on our stack.
    unsafe {
        call(number::SETSID, 0, 0, 0, 0);
        if terminal {
            call(number::IOCTL, 0, TIOCSCTTY, 0, 0);
        }
        // Ignored signals survive exec, and who started us may ignore some.
        for signal in 1..=LAST_SIGNAL {
            if signal != SIGKILL && signal != SIGSTOP {
                call(number::RT_SIGACTION, signal, (&raw const default) as usize, 0, SET_SIZE);
            }
        }
        set_signal_mask(0);
        let path = *(argv as *const usize);
        let errno = -call(number::EXECVE, path, argv, env, 0);
        report(NOT_EXECUTED, errno as i32);
    }
    exit(127)
}

/// Reaps whatever has ended. Ends with the command.
fn reap(command: isize) {
    loop {
        let mut status = 0i32;
        // SAFETY: a local for the status, and no usage asked for.
        let pid = unsafe {
            call(number::WAIT4, usize::MAX, (&raw mut status) as usize, WNOHANG, 0)
        };
        if pid <= 0 {
            return;
        }
        if pid == command {
            let signal = status & 0x7F;
            if signal == 0 {
                report(EXITED, (status >> 8) & 0xFF);
            } else {
                report(SIGNALED, signal);
            }
            exit(0);
        }
    }
}

extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the layout of a new program's stack: count, arguments, null, environment, null. The
    // launcher passes a name, options, and a command.
    let (options, argv, env) = unsafe {
        let count = *stack;
        let arguments = stack.add(1);
        if count < 3 {
            exit(125);
        }
        (*arguments.add(1) as *const u8, arguments.add(2) as usize, arguments.add(count + 1) as usize)
    };
    let (mut gated, mut terminal) = (false, false);
    let mut option = options;
    // SAFETY: a C string, read up to its end.
    unsafe {
        while *option != 0 {
            gated |= *option == b'g';
            terminal |= *option == b't';
            option = option.add(1);
        }
    }
    // Blocked signals are kept for us to take, even those that PID 1 would be spared.
    set_signal_mask(u64::MAX);
    // SAFETY: no pointers.
    unsafe {
        call(number::FCNTL, STATUS, F_SETFD, FD_CLOEXEC, 0);
    }
    if gated {
        wait_at_gate();
    }
    // Not before: who opens the gate must be able to open our namespaces. From now on the guest may
    // not trace us, as it lacks the capability. The command becomes traceable again by its exec.
    // SAFETY: no pointers.
    unsafe {
        call(number::PRCTL, PR_SET_DUMPABLE, 0, 0, 0);
    }
    // SAFETY: fork: a copy of this process, on a copy of its stack.
    let command = unsafe { call(number::CLONE, SIGCHLD, 0, 0, 0) };
    if command == 0 {
        become_command(argv, env, terminal);
    }
    if command < 0 {
        report(NOT_EXECUTED, -command as i32);
        exit(125);
    }
    // The command's descriptors: their other ends must see the end when the command closes them.
    for descriptor in 0..3 {
        // SAFETY: no pointers.
        unsafe {
            call(number::CLOSE, descriptor, 0, 0, 0);
        }
    }
    let all = u64::MAX;
    loop {
        reap(command);
        // SAFETY: a local of the size that is passed; no details, no time limit.
        let signal =
            unsafe { call(number::RT_SIGTIMEDWAIT, (&raw const all) as usize, 0, 0, SET_SIZE) };
        if signal == SIGTERM || signal == SIGHUP {
            // SAFETY: no pointers. A stopped process gets its signal when it goes on.
            unsafe {
                call(number::KILL, EVERYBODY, signal.cast_unsigned(), 0, 0);
                call(number::KILL, EVERYBODY, SIGCONT, 0, 0);
            }
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(125)
}
