//! PID 1 of a container: a static program without the standard library that runs one command at a time.
//!
//! Requests are frames on standard input; the command writes to standard output and error itself. When its first
//! process has ended, all others are killed and reaped, and then both streams get an end mark and the host a report. The protocol is in
//! `hm_vm_sys::helper`. When the input ends, nobody wants anything any more: all are killed with this process.
//!
//! The guest is hostile, and root: nothing of it is alive while a request is read or a report is written; this
//! process cannot be traced or read; the command inherits the three standard streams alone.
#![no_std]
#![no_main]

mod account;
mod calls;
mod child;
mod frames;
mod hosts;
mod memory;
mod numbers;
mod probe;
mod removal;
mod report;
mod run;
mod run_files;
mod terminal;
mod users;

use core::arch::global_asm;

use calls::PollFd;
use frames::{Frame, INPUT, NONCE, OUTPUT, Reader, Step};
use memory::Memory;
use numbers::*;
use report::Report;

const EXITED: u32 = 1;
const SIGNALED: u32 = 2;
const NOT_EXECUTED: u32 = 3;
const NO_DIRECTORY: u32 = 4;
const NO_USER: u32 = 5;
const NO_SECRET: u32 = 6;
const DONE: u32 = 7;
const BAD_REQUEST: u32 = 8;

/// Version of the protocol.
const VERSION: u8 = 1;

// The kernel starts a program with the stack pointer at the argument count.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
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
    "bl {main}",
    "brk #1",
    main = sym main,
);

/// What stays from one request to the next.
struct Helper {
    reader: Reader,
    /// Where SIGCHLD and SIGTERM are read from.
    signals: i32,
    null: i32,
    /// `/dev`, opened before any command could change what that leads to.
    devices: i32,
}

extern "C" fn main() -> ! {
    // All processes that can be seen here are killed after each command: they must be a container's.
    if calls::process_id() != 1 {
        calls::exit(125);
    }
    // Blocked signals are kept for us to take, even those that PID 1 would be spared.
    calls::set_signal_mask(u64::MAX);
    calls::hide_from_others();
    // What who started us has left open is not for commands.
    calls::close_others();
    calls::set_file_mask(0o022);
    let (signals, null, devices) = match (
        calls::signal_descriptor(&[SIGCHLD, SIGTERM]),
        calls::open(c"/dev/null", O_RDWR),
        calls::open(c"/dev", O_PATH | O_DIRECTORY),
    ) {
        (Ok(signals), Ok(null), Ok(devices)) => (signals, null, devices),
        _ => calls::exit(125),
    };
    let mut hello = *b"hm-vm\0\0\0";
    hello[5] = VERSION;
    hello[6] = PROCESSOR;
    report::emit(OUTPUT, &hello);
    let mut helper = Helper {
        reader: Reader::new(),
        signals,
        null,
        devices,
    };
    loop {
        let frame = helper.next_frame();
        helper.serve(frame);
    }
}

impl Helper {
    fn next_frame(&mut self) -> Frame {
        loop {
            let mut fds = [
                PollFd::new(INPUT, POLLIN),
                PollFd::new(self.signals, POLLIN),
            ];
            calls::poll(&mut fds, None);
            let [input, signals] = fds;
            if signals.has(POLLIN) {
                self.take_signals();
                while let Ok(Some(_)) = calls::reap(false) {}
            }
            if !input.has(!0) {
                continue;
            }
            match self.reader.step() {
                Step::More => {}
                Step::Frame(frame) => return frame,
                Step::End => self.give_up(),
                Step::Garbage => protocol_failure(),
            }
        }
    }

    fn serve(&mut self, frame: Frame) {
        // What was meant for a command that has ended meanwhile.
        if !matches!(frame.kind, b'R' | b'D' | b'P') {
            return;
        }
        let Some(nonce) = frame.payload.bytes().first_chunk::<NONCE>().copied() else {
            protocol_failure();
        };
        let report = match frame.kind {
            b'R' => run::run(self, frame.payload),
            b'D' => removal::remove_listed(frame.payload.bytes())
                .map(|failure| Report::new(DONE, failure)),
            _ => probe(&frame.payload),
        };
        let report = report.unwrap_or_else(|| Report::new(BAD_REQUEST, 0));
        report.send(&nonce);
    }

    /// SIGCHLD needs a look only. SIGTERM from outside ends us, as `docker stop` wants it; from inside it comes from a
    /// process of the VM, which has no say here.
    fn take_signals(&mut self) {
        let mut buffer = [0u8; 128];
        while calls::read(self.signals, &mut buffer) == Ok(buffer.len()) {
            let word = |at: usize| {
                u32::from_ne_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]])
            };
            const NUMBER: usize = 0;
            const SENDER: usize = 12;
            if word(NUMBER) == SIGTERM as u32 && word(SENDER) == 0 {
                self.give_up();
            }
        }
    }

    /// Ends, and all processes of the VM with it.
    fn give_up(&self) -> ! {
        calls::kill_everybody(SIGKILL);
        run_files::wipe_secrets(self.devices);
        calls::exit(0)
    }
}

fn probe(payload: &Memory) -> Option<Report> {
    let port = payload.bytes().get(NONCE..)?;
    let port = u16::from_le_bytes(port.try_into().ok()?);
    Some(Report::new(DONE, i32::from(probe::accepts(port))))
}

/// The host does not speak the protocol, or something else is connected.
fn protocol_failure() -> ! {
    calls::exit(124)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    calls::exit(125)
}

/// Named by the tables of the core library, which is compiled for programs that unwind. Nothing here does.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
