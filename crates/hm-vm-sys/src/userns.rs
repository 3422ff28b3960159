//! User namespaces: who is root inside, and who that is outside.
//!
//! A process makes one user namespace and uses it for all its VMs. It is kept alive by a file
//! descriptor alone; no process lives in it between uses.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;

use rustix::fs::{Mode, OFlags};

use crate::SysError;
use crate::stack::Stack;
use crate::subids::{subordinate_range, user_ranges};

/// Ids `inside..inside + count` of the namespace are `outside..outside + count` of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// How many ids exist inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// A range: files can belong to different users.
    Range,
    /// Root only, because the user has no subordinate ids, or no way to use them.
    Single,
}

/// First host id of the range that root uses when `/etc/subuid` gives root none.
///
/// It lies above systemd's container range (524288 to 1879048191) and below 2^31, where no
/// distribution assigns users (`systemd.io/UIDS-GIDS`).
pub const ROOT_RANGE_START: u32 = 0x7001_0000;

/// Number of ids inside when a range is available.
pub const RANGE_SIZE: u32 = 65536;

/// A user namespace.
#[derive(Debug)]
pub struct UserNamespace {
    fd: OwnedFd,
    mapping: Mapping,
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
    /// Why the mapping is not a range.
    reason: Option<String>,
}

impl UserNamespace {
    /// Makes the namespace that fits the current user: for root a range above all users; for an
    /// ordinary user its subordinate ids, or its own id alone where it has none.
    ///
    /// # Errors
    ///
    /// When user namespaces are not allowed here. `probe` knows why.
    pub fn for_current_user() -> Result<Self, SysError> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        if uid == 0 {
            let ranges = |file: &str| {
                let start =
                    subordinate_range(file, "root", 0).map_or(ROOT_RANGE_START, |(start, _)| start);
                vec![IdRange {
                    inside: 0,
                    outside: start,
                    count: RANGE_SIZE,
                }]
            };
            return Self::create(
                ranges("/etc/subuid"),
                ranges("/etc/subgid"),
                Mapping::Range,
                None,
            );
        }
        let reason = match user_ranges(uid, gid) {
            Ok((uids, gids)) => match Self::create(uids, gids, Mapping::Range, None) {
                Ok(namespace) => return Ok(namespace),
                Err(error) => error.to_string(),
            },
            Err(reason) => reason,
        };
        let own = |outside| {
            vec![IdRange {
                inside: 0,
                outside,
                count: 1,
            }]
        };
        Self::create(own(uid), own(gid), Mapping::Single, Some(reason))
    }

    /// For root: a namespace whose ids are the same inside and outside. What runs in it has no
    /// privileges outside, but the files of the host's users belong to it: a weaker form.
    ///
    /// # Errors
    ///
    /// When user namespaces are not allowed here, or for an ordinary user.
    pub fn identity() -> Result<Self, SysError> {
        let all = vec![IdRange {
            inside: 0,
            outside: 0,
            count: RANGE_SIZE,
        }];
        Self::create(all.clone(), all, Mapping::Range, None)
    }

    fn create(
        uids: Vec<IdRange>,
        gids: Vec<IdRange>,
        mapping: Mapping,
        reason: Option<String>,
    ) -> Result<Self, SysError> {
        let holder = Holder::start()?;
        let pid = holder.pid;
        if rustix::process::geteuid().is_root() {
            write_map(pid, "uid_map", &uids)?;
            write_map(pid, "gid_map", &gids)?;
        } else if mapping == Mapping::Single {
            write_proc(pid, "setgroups", "deny")?;
            write_map(pid, "uid_map", &uids)?;
            write_map(pid, "gid_map", &gids)?;
        } else {
            run_mapper("newuidmap", pid, &uids)?;
            run_mapper("newgidmap", pid, &gids)?;
        }
        let path = format!("/proc/{pid}/ns/user");
        let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| SysError::new(format!("opening {path}"), errno))?;
        Ok(Self {
            fd,
            mapping,
            uids,
            gids,
            reason,
        })
    }

    /// How many ids exist inside.
    pub fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// Why only one id exists inside, where that is so.
    pub fn single_reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The host's user id that root inside is.
    pub fn root_outside(&self) -> u32 {
        self.uids.first().map_or(0, |range| range.outside)
    }

    /// The host's user id that this one inside is. `None` when it does not exist inside.
    pub fn uid_outside(&self, inside: u32) -> Option<u32> {
        outside(&self.uids, inside)
    }

    /// The same for a group id.
    pub fn gid_outside(&self, inside: u32) -> Option<u32> {
        outside(&self.gids, inside)
    }

    /// Runs `work` as root of this namespace, and returns its result.
    ///
    /// The work runs in a process of its own that shares this process's memory and file
    /// descriptors; the calling thread waits for it, whatever it costs. The working directory and
    /// the file mode mask are the process's own. A panic of `work` goes on in the caller.
    ///
    /// `work` may do file system work and compute. It must not start threads or processes, and
    /// must not wait for the calling thread.
    ///
    /// # Errors
    ///
    /// When the process cannot be made or cannot enter the namespace. `work` did not run then.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, SysError> {
        let stack = Stack::new(WORK_STACK)?;
        let mut job = Job {
            namespace: self.fd.as_raw_fd(),
            single: self.mapping == Mapping::Single,
            caller: std::process::id(),
            work: Some(work),
            outcome: Outcome::Died,
        };
        let entry = entry_of(&job);
        let argument = &raw mut job;
        let pid = with_signals_blocked(|| {
            // SAFETY: needed because only a process without threads may enter a user namespace.
            // Sound because CLONE_VFORK suspends this thread until the child has ended, so that
            // the child's use of this thread's locals (`job`) and thread-local storage is as
            // exclusive as if this thread ran; other threads go on and release whatever locks
            // the child waits for; signals are blocked, so that no handler runs in the child;
            // the child runs on a stack of its own and leaves through `_exit`.
            unsafe {
                libc::clone(
                    entry,
                    stack.top(),
                    libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES,
                    argument.cast(),
                )
            }
        });
        if pid < 0 {
            return Err(SysError::last("starting work in a user namespace"));
        }
        wait_for(pid);
        match job.outcome {
            Outcome::Done(Ok(value)) => Ok(value),
            Outcome::Done(Err(panic)) => resume_unwind(panic),
            Outcome::Failed(doing, errno) => {
                Err(SysError::new(doing, io::Error::from_raw_os_error(errno)))
            }
            Outcome::Died => Err(SysError::new(
                "working in a user namespace",
                io::Error::other("the process was killed"),
            )),
        }
    }
}

fn outside(ranges: &[IdRange], inside: u32) -> Option<u32> {
    let within = |range: &IdRange| {
        let offset = inside.checked_sub(range.inside)?;
        (offset < range.count).then(|| range.outside + offset)
    };
    ranges.iter().find_map(within)
}

impl AsFd for UserNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reserved, not committed: deep recursion of a tree walk fits.
const WORK_STACK: usize = 8 << 20;

enum Outcome<T> {
    /// The child ended without saying how.
    Died,
    Failed(&'static str, i32),
    Done(std::thread::Result<T>),
}

struct Job<F, T> {
    namespace: RawFd,
    single: bool,
    /// The process that waits.
    caller: u32,
    work: Option<F>,
    outcome: Outcome<T>,
}

/// The entry point for a job of this type, which cannot be written down where it is used.
fn entry_of<F: FnOnce() -> T, T>(_job: &Job<F, T>) -> extern "C" fn(*mut libc::c_void) -> i32 {
    run_job::<F, T>
}

extern "C" fn run_job<F: FnOnce() -> T, T>(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `run` passes a pointer to its own `Job<F, T>` and is suspended while we run.
    let job = unsafe { &mut *argument.cast::<Job<F, T>>() };
    job.outcome = match enter(job.namespace, job.single).and_then(|()| die_with_caller(job.caller))
    {
        Err((doing, errno)) => Outcome::Failed(doing, errno),
        Ok(()) => match job.work.take() {
            Some(work) => Outcome::Done(catch_unwind(AssertUnwindSafe(work))),
            None => Outcome::Died,
        },
    };
    // SAFETY: leaves without running exit handlers, which belong to the parent.
    unsafe { libc::_exit(0) }
}

/// Has the kernel kill this process when the waiting thread dies. It shares that one's files, and
/// with them locks that say "alive". Fails when it is dead already: nobody would ever wake this process then.
fn die_with_caller(caller: u32) -> Result<(), (&'static str, i32)> {
    // SAFETY: no pointers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_SET_PDEATHSIG,
            libc::SIGKILL,
            0,
            0,
            0,
        )
    };
    if result < 0 {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        return Err(("tying work to its caller", errno));
    }
    // SAFETY: no pointers. Past libc, as it shares the caller's memory.
    let parent = unsafe { libc::syscall(libc::SYS_getppid) };
    if parent == libc::c_long::from(caller) {
        Ok(())
    } else {
        Err(("working for a caller that has died", libc::ESRCH))
    }
}

/// Makes the calling process root of the namespace. Allocates nothing.
pub(crate) fn enter(namespace: RawFd, single: bool) -> Result<(), (&'static str, i32)> {
    // Past libc, whose wrappers would change the ids of the parent's threads too.
    let call = |number: libc::c_long, a: libc::c_int, b: libc::c_int, c: libc::c_int, doing| {
        // SAFETY: needed because safe wrappers go through libc. Sound because none of the calls
        // made here takes a pointer, but for setgroups, whose list of length 0 is null.
        let result = unsafe { libc::syscall(number, a, b, c) };
        if result < 0 {
            Err((
                doing,
                io::Error::last_os_error().raw_os_error().unwrap_or(0),
            ))
        } else {
            Ok(())
        }
    };
    let user = libc::CLONE_NEWUSER;
    call(
        libc::SYS_setns,
        namespace,
        user,
        0,
        "entering the user namespace",
    )?;
    call(
        libc::SYS_setresgid,
        0,
        0,
        0,
        "becoming the root group inside",
    )?;
    if !single {
        call(
            libc::SYS_setgroups,
            0,
            0,
            0,
            "dropping supplementary groups",
        )?;
    }
    call(libc::SYS_setresuid, 0, 0, 0, "becoming root inside")
}

/// Runs `clone` with all signals blocked, so that the child begins with none to handle.
pub(crate) fn with_signals_blocked<T>(clone: impl FnOnce() -> T) -> T {
    // SAFETY: `sigset_t` is plain data that sigfillset and pthread_sigmask fill in; both only
    // touch the values passed to them and this thread's mask.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        let result = clone();
        let errno = *libc::__errno_location();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut());
        *libc::__errno_location() = errno;
        result
    }
}

/// Waits for a child that sends no SIGCHLD. Somebody else may have reaped it: that is fine.
pub(crate) fn wait_for(pid: libc::pid_t) {
    loop {
        // SAFETY: a null status pointer is allowed; the pid is a child of ours.
        let result = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
        if result == pid || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// A child that stays in a fresh user namespace until it is let go.
struct Holder {
    pid: libc::pid_t,
    /// Closed with us: the child then ends by itself, even if we were killed.
    _life: OwnedFd,
}

impl Holder {
    fn start() -> Result<Self, SysError> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| SysError::new("making a pipe", errno))?;
        let (read_raw, write_raw) = (read.as_raw_fd(), write.as_raw_fd());
        let pid = with_signals_blocked(|| {
            // SAFETY: needed to make a process in a new user namespace. Without CLONE_VM the
            // child has a copy of the memory, as after fork; it only makes system calls.
            unsafe {
                let pid = libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER, 0, 0, 0, 0);
                if pid == 0 {
                    libc::syscall(libc::SYS_close, write_raw);
                    let mut byte = 0u8;
                    // Ends at the end of the pipe, when the parent dies; the parent kills it.
                    libc::syscall(libc::SYS_read, read_raw, &raw mut byte, 1);
                    libc::syscall(libc::SYS_exit_group, 0);
                }
                pid
            }
        });
        if pid < 0 {
            return Err(SysError::last("making a user namespace"));
        }
        Ok(Self {
            pid: libc::pid_t::try_from(pid)
                .map_err(|_| SysError::new("reading a process id", io::ErrorKind::InvalidData))?,
            _life: write,
        })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Not by the end of the pipe: another child, forked meanwhile, may hold it open.
        // SAFETY: no pointers; the child is ours and not waited for, so the id means no other.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
        }
        wait_for(self.pid);
    }
}

fn write_proc(pid: libc::pid_t, file: &str, text: &str) -> Result<(), SysError> {
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, text).map_err(|error| SysError::new(format!("writing {path}"), error))
}

fn write_map(pid: libc::pid_t, file: &str, ranges: &[IdRange]) -> Result<(), SysError> {
    let lines: Vec<String> = ranges
        .iter()
        .map(|range| format!("{} {} {}", range.inside, range.outside, range.count))
        .collect();
    write_proc(pid, file, &lines.join("\n"))
}

fn run_mapper(program: &str, pid: libc::pid_t, ranges: &[IdRange]) -> Result<(), SysError> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for range in ranges {
        for number in [range.inside, range.outside, range.count] {
            command.arg(number.to_string());
        }
    }
    let output = command
        .output()
        .map_err(|error| SysError::new(format!("running {program} (package uidmap)"), error))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(SysError::new(
        format!("running {program}"),
        io::Error::other(message),
    ))
}
