//! The threads that start processes.
//!
//! A process dies with the *thread* that made it (`PR_SET_PDEATHSIG`), so starting is done by
//! threads that live as long as the program: a few of them, made when first needed.

use std::ffi::{CString, c_char};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::pipe::{PipeFlags, pipe_with};

use super::init::init_program;
use super::interpreter::{Plan, Report, Stage, intermediate};
use super::op::{Launch, NetworkOf, Op};
use super::process::Process;
use crate::SysError;
use crate::stack::Stack;
use crate::userns::{Mapping, wait_for, with_signals_blocked};

/// Why a process could not be started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The working directory of the command is not there, or is none.
    #[error("changing to the working directory {path}: {source}")]
    WorkingDirectory {
        /// Its path.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Something cannot be mounted where it is wanted.
    #[error("mounting at {target}: {source}")]
    Mount {
        /// Where.
        target: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A protection cannot be had.
    #[error("{doing}: {source}")]
    Protection {
        /// Its name.
        name: &'static str,
        /// What was being done to what.
        doing: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another operation failed.
    #[error(transparent)]
    Sys(#[from] SysError),
}

type Reply = Box<dyn FnOnce(Result<Process, LaunchError>) + Send>;

/// Starts a process on a spawner thread, and hands it to `reply` on that thread. If `reply` drops
/// the process, the VM is killed.
///
/// # Errors
///
/// When no spawner thread can be started. All other errors go to `reply`.
pub fn launch(
    launch: Launch,
    reply: impl FnOnce(Result<Process, LaunchError>) + Send + 'static,
) -> Result<(), SysError> {
    static SPAWNERS: OnceLock<Mutex<Sender<(Launch, Reply)>>> = OnceLock::new();
    let spawners = match SPAWNERS.get() {
        Some(spawners) => spawners,
        None => {
            let sender = start_spawners()?;
            SPAWNERS.get_or_init(|| Mutex::new(sender))
        }
    };
    spawners
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((launch, Box::new(reply)))
        .map_err(|_| {
            SysError::new(
                "reaching the spawner threads",
                std::io::ErrorKind::BrokenPipe,
            )
        })
}

/// Starting is work of the kernel, a millisecond of it: more threads than this gain nothing.
const MOST_SPAWNERS: usize = 8;

fn start_spawners() -> Result<Sender<(Launch, Reply)>, SysError> {
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    for number in 0..count.min(MOST_SPAWNERS) {
        let receiver = Arc::clone(&receiver);
        let stacks = Stacks::new()?;
        std::thread::Builder::new()
            .name(format!("hm-vm-spawn-{number}"))
            .spawn(move || serve(&receiver, &stacks))
            .map_err(|error| SysError::new("starting a spawner thread", error))?;
    }
    Ok(sender)
}

struct Stacks {
    outer: Stack,
    inner: Stack,
}

/// The interpreter needs little: no recursion, no buffers.
const INTERPRETER_STACK: usize = 64 * 1024;

impl Stacks {
    fn new() -> Result<Self, SysError> {
        Ok(Self {
            outer: Stack::new(INTERPRETER_STACK)?,
            inner: Stack::new(INTERPRETER_STACK)?,
        })
    }
}

fn serve(receiver: &Mutex<Receiver<(Launch, Reply)>>, stacks: &Stacks) {
    loop {
        let job = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        // The sender is static: an error means that the program is ending.
        let Ok((launch, reply)) = job else { return };
        reply(start(launch, stacks));
    }
}

/// Descriptors 0 to 4 are assigned in the child: everything that goes there must lie above.
const FIRST_FREE: RawFd = 10;

/// A copy of a descriptor that lies above those.
pub(super) fn lift(fd: &OwnedFd) -> Result<OwnedFd, SysError> {
    rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FREE)
        .map_err(|errno| SysError::new("duplicating a file descriptor", errno))
}

fn make_pipe() -> Result<(OwnedFd, OwnedFd), SysError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|errno| SysError::new("making a pipe", errno))
}

fn start(launch: Launch, stacks: &Stacks) -> Result<Process, LaunchError> {
    let init = init_program()?;
    let (status_read, status_write) = make_pipe()?;
    // Read after the end of the VM: a report that is not there must not block us, even if
    // something still holds the other end.
    rustix::fs::fcntl_setfl(&status_read, rustix::fs::OFlags::NONBLOCK)
        .map_err(|errno| SysError::new("preparing the status pipe", errno))?;
    let gate = launch.gated.then(make_pipe).transpose()?;

    let mut lifted = Vec::with_capacity(5);
    for fd in launch.stdio.iter().chain([&status_write]) {
        lifted.push(lift(fd)?);
    }
    if let Some((read, _)) = &gate {
        lifted.push(lift(read)?);
    }
    let mut descriptors = [None; 5];
    for (slot, fd) in descriptors.iter_mut().zip(&lifted) {
        *slot = Some(fd.as_raw_fd());
    }

    let options = options(&launch);
    let name = c"hm-vm-init";
    let argv: Vec<*const c_char> = [name.as_ptr(), options.as_ptr()]
        .into_iter()
        .chain(launch.argv.iter().map(|text| text.as_ptr()))
        .chain([std::ptr::null()])
        .collect();
    let env: Vec<*const c_char> = launch
        .env
        .iter()
        .map(|text| text.as_ptr())
        .chain([std::ptr::null()])
        .collect();

    let mut plan = Plan {
        user_namespace: std::os::fd::AsFd::as_fd(&*launch.user_namespace).as_raw_fd(),
        single_id: launch.user_namespace.mapping() == Mapping::Single,
        outer: &launch.outer,
        unshare: namespaces(&launch),
        network: shared_network(&launch),
        inner: &launch.inner,
        descriptors,
        init,
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        inner_stack: stacks.inner.top(),
        report: Report::default(),
    };
    run(&mut plan, stacks)?;
    finish(
        plan.report,
        &launch,
        status_read,
        gate.map(|(_, write)| write),
    )
}

/// What init is to do beside starting the command.
fn options(launch: &Launch) -> CString {
    let options = match (launch.gated, launch.terminal) {
        (false, false) => c"",
        (true, false) => c"g",
        (false, true) => c"t",
        (true, true) => c"gt",
    };
    options.into()
}

/// The network namespace to join.
fn shared_network(launch: &Launch) -> Option<RawFd> {
    match &launch.namespaces.network {
        NetworkOf::Shared(network) => Some(network.as_raw_fd()),
        NetworkOf::New | NetworkOf::Caller => None,
    }
}

fn namespaces(launch: &Launch) -> libc::c_int {
    let always = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    match launch.namespaces.network {
        NetworkOf::New => always | libc::CLONE_NEWNET,
        NetworkOf::Caller | NetworkOf::Shared(_) => always,
    }
}

/// Runs the two processes, until both have left our memory.
fn run(plan: &mut Plan<'_>, stacks: &Stacks) -> Result<(), SysError> {
    let dumpable = Dumpable::now();
    let argument = std::ptr::from_mut(plan).cast();
    let pid = with_signals_blocked(|| {
        // SAFETY: needed because only a process without threads may enter a user namespace, and
        // a copy of our memory (fork) would cost time with its size and show it to the VM. Sound
        // because CLONE_VFORK suspends this thread until the child has left our memory, so that
        // the plan, and this thread's errno, are the child's alone meanwhile; the interpreter
        // allocates nothing and takes no lock; signals are blocked, so no handler runs in it.
        unsafe {
            libc::clone(
                intermediate,
                stacks.outer.top(),
                libc::CLONE_VM | libc::CLONE_VFORK,
                argument,
            )
        }
    });
    let failed = (pid < 0).then(|| SysError::last("starting a process"));
    if let Some(error) = failed {
        return Err(error);
    }
    wait_for(pid);
    dumpable.restore();
    Ok(())
}

fn finish(
    report: Report,
    launch: &Launch,
    status: OwnedFd,
    gate: Option<OwnedFd>,
) -> Result<Process, LaunchError> {
    if let Some(failure) = report.failure {
        if report.pid > 0 {
            wait_for(report.pid);
        }
        let source = std::io::Error::from_raw_os_error(failure.errno);
        let doing: &str = match failure.stage {
            Stage::Outer(index) => return Err(failed_op(&launch.outer, index, source)),
            Stage::Inner(index) => return Err(failed_op(&launch.inner, index, source)),
            Stage::EnterUserNamespace(doing) => doing,
            Stage::Unshare => "making namespaces",
            Stage::JoinNetwork => "joining the shared network",
            Stage::CloneInner => "starting the VM's first process",
            Stage::Prepare => "tying the VM to this process",
            Stage::Descriptors => "arranging file descriptors",
            Stage::Exec => "executing init",
        };
        return Err(SysError::new(doing, source).into());
    }
    let gone = || SysError::new("starting a process", std::io::ErrorKind::BrokenPipe);
    let pid = rustix::process::Pid::from_raw(report.pid).ok_or_else(gone)?;
    // The process is our child and not waited for: the id cannot mean another one.
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    match pidfd {
        Ok(pidfd) => Ok(Process {
            pid: report.pid,
            pidfd,
            status,
            gate,
            reaped: false,
        }),
        Err(errno) => {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            wait_for(report.pid);
            Err(SysError::new("opening a process descriptor", errno).into())
        }
    }
}

fn failed_op(ops: &[Op], index: usize, source: std::io::Error) -> LaunchError {
    let op = ops.get(index);
    if let Some(Op::Show { target, .. }) = op {
        let target = target.to_string_lossy().into_owned();
        return LaunchError::Mount { target, source };
    }
    if let Some(Op::WorkingDirectory { path, .. }) = op {
        let path = path.to_string_lossy().into_owned();
        return LaunchError::WorkingDirectory { path, source };
    }
    let doing = op.map_or_else(String::new, Op::describe);
    match op.and_then(Op::protection) {
        Some(name) => LaunchError::Protection {
            name,
            doing,
            source,
        },
        None => SysError::new(doing, source).into(),
    }
}

/// Whether our process may be traced and dumps core. The kernel keeps that with the memory, which
/// the children share, and takes it away when one of them changes its user id.
struct Dumpable(bool);

impl Dumpable {
    fn now() -> Self {
        // SAFETY: no pointers.
        Self(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) } == 1)
    }

    fn restore(&self) {
        if self.0 {
            // SAFETY: no pointers. It gives back what our process had before.
            unsafe {
                libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            }
        }
    }
}
