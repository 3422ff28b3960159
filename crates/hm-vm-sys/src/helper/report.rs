//! How a job ended.

use std::time::Duration;

/// How a job ended, and what it used. Figures that could not be had are `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened.
    pub kind: ReportKind,
    /// User and system time of all processes.
    pub cpu: Duration,
    /// Peak memory in bytes: of the whole VM if a control group counts it and it had its peak now, else the largest
    /// resident set of one process.
    pub peak_memory_bytes: Option<u64>,
    /// Bytes written to storage, page cache included.
    pub written_bytes: u64,
    /// Processes that the kernel ended for want of memory.
    pub oom_kills: u64,
    /// New processes that the limit on processes forbade.
    pub refused_forks: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// The command's first process exited, with this code.
    Exited(u8),
    /// This signal ended it.
    Signaled(u8),
    /// It could not be executed: the kernel's error number.
    NotExecuted(i32),
    /// The working directory cannot be entered or made: the kernel's error number. Nothing ran.
    WorkingDirectory(i32),
    /// The user cannot be had. Nothing ran.
    User(UserProblem),
    /// A secret's file cannot be written. Nothing ran.
    Secret {
        /// Which one, in the order of the request.
        index: usize,
        /// The kernel's error number.
        errno: i32,
    },
    /// A job that is no command is done.
    Done(i32),
    /// The request made no sense to the helper.
    BadRequest,
}

/// Why a user cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserProblem {
    /// The guest's `/etc/passwd` has no such user.
    NoUser,
    /// The guest's `/etc/group` has no such group.
    NoGroup,
    /// Not of the form `NAME|UID[:GROUP]`.
    Form,
    /// The files cannot be read, or the ids not be taken on (22: they do not exist in the container): the kernel's error number.
    Kernel(i32),
}

impl Report {
    /// In bytes.
    pub const SIZE: usize = 64;

    /// Reads it. `None` for bytes that no helper writes.
    pub fn parse(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        let long = |at: usize| {
            let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        let value = word(4)?.cast_signed();
        let kind = match word(0)? {
            1 => ReportKind::Exited(u8::try_from(value).ok()?),
            2 => ReportKind::Signaled(u8::try_from(value).ok()?),
            3 => ReportKind::NotExecuted(value),
            4 => ReportKind::WorkingDirectory(value),
            5 => ReportKind::User(match value {
                1 => UserProblem::NoUser,
                2 => UserProblem::NoGroup,
                3 => UserProblem::Form,
                errno => UserProblem::Kernel(errno.checked_neg()?),
            }),
            6 => ReportKind::Secret {
                index: word(48)? as usize,
                errno: value,
            },
            7 => ReportKind::Done(value),
            8 => ReportKind::BadRequest,
            _ => return None,
        };
        Some(Self {
            kind,
            cpu: Duration::from_nanos(long(8)?),
            peak_memory_bytes: long(16).filter(|peak| *peak > 0),
            written_bytes: long(24)?,
            oom_kills: long(32)?,
            refused_forks: long(40)?,
        })
    }
}
