//! Running one command: from the request to the death of the last process.

use core::ffi::CStr;

use crate::account::{Counted, Usage};
use crate::calls::{self, PollFd, Result};
use crate::child::{Command, become_command};
use crate::frames::{ERRORS, Fields, Frame, INPUT, OUTPUT, Step};
use crate::hosts::Hosts;
use crate::memory::{List, Memory};
use crate::numbers::*;
use crate::report::{Report, emit};
use crate::run_files::RunFiles;
use crate::terminal::Terminal;
use crate::users::{Accounts, User};
use crate::{Helper, protocol_failure};

/// Runs the command of a request, and says how it ended. No process but this one is alive then.
pub fn run(helper: &mut Helper, request: Memory) -> Option<Report> {
    let bytes = request.bytes().get(crate::frames::NONCE..)?;
    let fields = Fields::new(bytes)?;
    let accounts = match Accounts::read() {
        Ok(accounts) => accounts,
        Err(errno) => return Some(Report::new(crate::NO_USER, -errno)),
    };
    let asked = fields.tagged(b'u').next().map(|field| field.bytes());
    let user = match asked.map(|asked| accounts.find(asked)).transpose() {
        Ok(user) => user,
        Err(why) => return Some(Report::new(crate::NO_USER, why)),
    };
    let owner = user.as_ref().map_or((0, 0), |user| (user.uid, user.gid));
    let hosts = Hosts::provide();
    let mut files = RunFiles::new(fields, helper.devices);
    let report = match files.make(owner) {
        Err(refused) if refused.index == usize::MAX => {
            Report::new(crate::NOT_EXECUTED, refused.errno)
        }
        Err(refused) => Report::new(crate::NO_SECRET, refused.errno).about(refused.index),
        Ok(()) => run_with(helper, fields, user.as_ref(), owner)
            .unwrap_or_else(|errno| Report::new(crate::NOT_EXECUTED, errno)),
    };
    files.remove();
    hosts.put_back();
    if let Ok(shared) = calls::open_at(helper.devices, c"shm", O_DIRECTORY | O_NOFOLLOW, 0) {
        crate::removal::empty_directory(shared);
        calls::close(shared);
    }
    Some(report)
}

fn run_with(
    helper: &mut Helper,
    fields: Fields<'_>,
    user: Option<&User<'_>>,
    owner: (u32, u32),
) -> Result<Report> {
    let before = Counted::now();
    let terminal = match fields.tagged(b't').next() {
        Some(size) => Some(Terminal::open(size.bytes(), owner.0)?),
        None => None,
    };
    if terminal.is_none() {
        give_streams(owner);
    }
    let arguments = pointers(fields.tagged(b'c').map(|field| field.text()))?;
    let account = account_variables(user)?;
    let env = environment(fields, &account)?;
    let directory = fields
        .filter(|field| matches!(field.tag, b'w' | b'W'))
        .last();
    let failures = calls::pipe()?;
    let path = fields.tagged(b'c').next().map(|field| field.text());
    let command = Command {
        path: path.unwrap_or_default(),
        argv: arguments.items().as_ptr(),
        env: env.items().as_ptr(),
        directory: directory.map_or(c"/", |field| field.text()),
        make_directory: directory.is_some_and(|field| field.tag == b'W'),
        user,
        input: terminal.as_ref().map_or(helper.null, Terminal::slave),
        terminal: terminal.as_ref().map(Terminal::slave),
        failures: failures[1],
    };
    // SAFETY: the child drops nothing of ours: it ends, or becomes the command.
    let pid = unsafe { calls::fork() };
    if pid == Ok(0) {
        become_command(&command);
    }
    calls::close(failures[1]);
    let ended = pid.map(|pid| {
        let mut run = Run {
            helper,
            terminal,
            pid,
            usage: Usage::default(),
        };
        let status = run.until_ended();
        run.end_all();
        (status, run.usage)
    });
    let mut failure = [0u8; 8];
    let failed = calls::read(failures[0], &mut failure) == Ok(failure.len());
    calls::close(failures[0]);
    let (status, usage) = ended?;
    let [k0, k1, k2, k3, v0, v1, v2, v3] = failure;
    let report = if failed {
        let kind = u32::from_ne_bytes([k0, k1, k2, k3]);
        Report::new(kind, i32::from_ne_bytes([v0, v1, v2, v3]))
    } else {
        Report::of_status(status)
    };
    Ok(report.with_usage(&usage, &before, &Counted::now()))
}

/// The command's user may open `/dev/stdout` anew, and finds it as it is by default, whatever the last command did with it.
fn give_streams(owner: (u32, u32)) {
    for stream in [OUTPUT, ERRORS] {
        calls::make_blocking(stream);
        if calls::is_pipe(stream) {
            let _ = calls::change_owner(stream, owner.0, owner.1);
        }
    }
}

fn pointers<'a>(texts: impl Iterator<Item = &'a CStr> + Clone) -> Result<List<usize>> {
    let mut list = List::new(texts.clone().count() + 1)?;
    for text in texts {
        list.push(text.as_ptr() as usize);
    }
    list.push(0);
    Ok(list)
}

/// HOME, USER and LOGNAME of the user, each ended by a zero byte.
fn account_variables(user: Option<&User<'_>>) -> Result<Memory> {
    let (name, home): (&[u8], &[u8]) = match user {
        Some(user) => (user.name, user.home),
        None => (b"root", b"/root"),
    };
    let parts: [&[u8]; 9] = [
        b"HOME=",
        home,
        b"\0",
        b"USER=",
        name,
        b"\0",
        b"LOGNAME=",
        name,
        b"\0",
    ];
    // Who was not asked for has no LOGNAME.
    let parts = if user.is_some() {
        &parts[..]
    } else {
        &parts[..6]
    };
    let mut memory = Memory::new(parts.iter().map(|part| part.len()).sum())?;
    let mut rest = memory.bytes_mut();
    for part in parts {
        let (here, after) = rest.split_at_mut(part.len());
        here.copy_from_slice(part);
        rest = after;
    }
    Ok(memory)
}

fn name_of(variable: &[u8]) -> &[u8] {
    variable
        .split(|byte| *byte == b'=')
        .next()
        .unwrap_or_default()
}

/// What is declared, the account's variables that it leaves, and the defaults that both leave.
fn environment(fields: Fields<'_>, account: &Memory) -> Result<List<usize>> {
    let account = || {
        let texts = account.bytes().split_inclusive(|byte| *byte == 0);
        texts.filter_map(|text| CStr::from_bytes_with_nul(text).ok())
    };
    let declared = |name: &[u8]| {
        fields
            .tagged(b'e')
            .any(|field| name_of(field.bytes()) == name)
    };
    let of_account = |name: &[u8]| account().any(|text| name_of(text.to_bytes()) == name);
    let is_asked_for = fields.tagged(b'u').next().is_some();
    let default = |name: &[u8]| {
        fields
            .tagged(b'd')
            .any(|field| name_of(field.bytes()) == name)
    };
    let count = fields
        .filter(|field| matches!(field.tag, b'e' | b'd'))
        .count();
    let mut list = List::new(count + 4)?;
    for field in fields.tagged(b'e') {
        list.push(field.text().as_ptr() as usize);
    }
    for text in account() {
        let name = name_of(text.to_bytes());
        // Of root, who was not asked for, a default holds.
        if !declared(name) && (is_asked_for || !default(name)) {
            list.push(text.as_ptr() as usize);
        }
    }
    for field in fields.tagged(b'd') {
        let name = name_of(field.bytes());
        if !declared(name) && !(is_asked_for && of_account(name)) {
            list.push(field.text().as_ptr() as usize);
        }
    }
    list.push(0);
    Ok(list)
}

/// A command that runs.
struct Run<'a> {
    helper: &'a mut Helper,
    terminal: Option<Terminal>,
    pid: i32,
    usage: Usage,
}

impl Run<'_> {
    /// Returns the command's status.
    fn until_ended(&mut self) -> i32 {
        loop {
            let has_room = self.terminal.as_ref().is_none_or(Terminal::has_room);
            let none = [(-1, 0); 2];
            let relayed = self.terminal.as_ref().map_or(none, Terminal::interests);
            let mut fds = [
                PollFd::new(INPUT, if has_room { POLLIN } else { 0 }),
                PollFd::new(self.helper.signals, POLLIN),
                PollFd::new(relayed[0].0, relayed[0].1),
                PollFd::new(relayed[1].0, relayed[1].1),
            ];
            calls::poll(&mut fds, None);
            let [input, signals, master, output] = fds;
            if input.has(POLLHUP | POLLERR) {
                self.helper.give_up();
            }
            if signals.has(POLLIN) {
                self.helper.take_signals();
                if let Some(status) = self.reap_ended() {
                    return status;
                }
            }
            if let Some(terminal) = &mut self.terminal {
                if master.has(!0) || output.has(!0) {
                    terminal.relay(master.has(POLLOUT), output.has(!0));
                }
            }
            if input.has(POLLIN) {
                match self.helper.reader.step() {
                    Step::More => {}
                    Step::Frame(frame) => self.obey(&frame),
                    Step::End => self.helper.give_up(),
                    Step::Garbage => protocol_failure(),
                }
            }
        }
    }

    fn reap_ended(&mut self) -> Option<i32> {
        let mut status = None;
        while let Ok(Some(ended)) = calls::reap(false) {
            self.usage.add(&ended);
            if ended.pid == self.pid {
                status = Some(ended.status);
            }
        }
        status
    }

    fn obey(&mut self, frame: &Frame) {
        let payload = frame.payload.bytes();
        match (frame.kind, payload, &mut self.terminal) {
            (b'S', &[s0, s1, s2, s3], _) => {
                let signal = i32::from_le_bytes([s0, s1, s2, s3]);
                if !(1..=LAST_SIGNAL).contains(&signal) {
                    protocol_failure();
                }
                signal_everybody(signal);
            }
            (b'H', [], _) => signal_everybody(SIGHUP),
            (b'K', [], _) => calls::kill_everybody(SIGKILL),
            (b'I', typed, Some(terminal)) => terminal.take_typed(typed),
            (b'Z', size, Some(terminal)) if size.len() == 4 => terminal.resize(size),
            _ => protocol_failure(),
        }
    }

    /// Kills and reaps all that is left, and gives out what they had written.
    fn end_all(&mut self) {
        loop {
            calls::kill_everybody(SIGKILL);
            match calls::reap(true) {
                Ok(Some(ended)) => self.usage.add(&ended),
                Err(EINTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
        if let Some(terminal) = self.terminal.take() {
            terminal.finish(|bytes| emit(OUTPUT, bytes));
        }
    }
}

/// A stopped process gets its signal when it goes on.
fn signal_everybody(signal: i32) {
    calls::kill_everybody(signal);
    if signal != SIGSTOP {
        calls::kill_everybody(SIGCONT);
    }
}
