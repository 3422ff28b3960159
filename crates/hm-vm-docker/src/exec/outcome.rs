//! What a report means.

use hm_vm_core::{Error, ExecOutcome, Limit, OutputSink, Stream, VmConfig};
use hm_vm_sys::helper::{Report, ReportKind, UserProblem};

use super::job::Ended;
use super::request::Command;

/// What runs a command.
const SHELL: &str = "/bin/sh";

/// Turns the end of a command into a result. `sink` gets a line where the user needs one.
///
/// # Errors
///
/// Why it was stopped, [`Error::LimitExceeded`], [`Error::InvalidInput`], [`Error::NoSpace`], [`Error::VmLost`].
pub(crate) fn judge(
    ended: Ended,
    command: &Command,
    config: &VmConfig,
    sink: &dyn OutputSink,
) -> Result<ExecOutcome, Error> {
    if let Some(stopped) = ended.stopped {
        return Err(stopped);
    }
    // Whatever the command made of the loss of a process: its result is not that of the same
    // command with enough memory, and must not pass for it in a cache.
    if ended.report.oom_kills > 0 && config.memory_mib.is_some() {
        return Err(out_of_memory(config));
    }
    let (exit_code, message) = exit_code(&ended.report, command)?;
    if let Some(message) = message {
        if sink.wants_bytes() {
            sink.on_bytes(Stream::Stderr, format!("{message}\n").as_bytes());
        } else {
            sink.on_stderr(&message);
        }
    }
    Ok(ExecOutcome {
        exit_code,
        usage: ended.usage,
    })
}

/// A process was killed at the memory limit.
pub(super) fn out_of_memory(config: &VmConfig) -> Error {
    Error::LimitExceeded {
        limit: Limit::Memory,
        detail: format!(
            "the kernel killed a process of it at {} MiB",
            config.memory_mib.unwrap_or_default()
        ),
    }
}

/// The exit code of rule V1, and a line for standard error where the user needs one.
fn exit_code(report: &Report, command: &Command) -> Result<(i32, Option<String>), Error> {
    const NOT_FOUND: i32 = 127;
    const SIGNAL: i32 = 128;
    match report.kind {
        ReportKind::Exited(code) => Ok((i32::from(code), None)),
        ReportKind::Signaled(signal) => Ok((SIGNAL + i32::from(signal), None)),
        ReportKind::NotExecuted(errno) => {
            let message = format!("hm-vm: {SHELL}: {}", kernel(errno));
            Ok((NOT_FOUND, Some(message)))
        }
        ReportKind::WorkingDirectory(errno) => {
            Err(refused_directory(command.working_dir(), &kernel(errno)))
        }
        ReportKind::User(problem) => Err(refused_user(command.user(), problem)),
        ReportKind::Secret { index, errno } => {
            Err(refused_secret(command.secret_target(index), &kernel(errno)))
        }
        ReportKind::Done(_) | ReportKind::BadRequest => Err(Error::VmLost {
            reason: format!(
                "its helper did not understand the request: {:?}",
                report.kind
            ),
        }),
    }
}

/// An error number of the kernel in words.
fn kernel(errno: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno)
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

fn refused_directory(path: &str, error: &std::io::Error) -> Error {
    if is_full(error) {
        return Error::NoSpace {
            doing: format!("making the working directory {path:?}"),
        };
    }
    Error::InvalidInput {
        what: format!("working directory {path:?}"),
        reason: format!("cannot be entered in the VM: {error}"),
    }
}

fn refused_user(user: &str, problem: UserProblem) -> Error {
    let group = user.split_once(':').map_or("", |(_, group)| group);
    Error::InvalidInput {
        what: format!("user {user:?}"),
        reason: match problem {
            UserProblem::NoUser => "the VM's /etc/passwd has no such user".into(),
            UserProblem::NoGroup => format!("the VM's /etc/group has no group {group:?}"),
            UserProblem::Form => "must be NAME, UID, NAME:GROUP or UID:GROUP".into(),
            UserProblem::Kernel(errno) => format!("cannot be had in the VM: {}", kernel(errno)),
        },
    }
}

fn refused_secret(target: &str, error: &std::io::Error) -> Error {
    if is_full(error) {
        return Error::NoSpace {
            doing: format!("writing the secret {target}"),
        };
    }
    Error::InvalidInput {
        what: format!("mount target {target:?}"),
        reason: match error.kind() {
            std::io::ErrorKind::AlreadyExists => "there is a file in the VM at this place".into(),
            _ => format!("cannot be written in the VM: {error}"),
        },
    }
}
