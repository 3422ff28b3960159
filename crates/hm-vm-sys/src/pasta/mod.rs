//! Outbound network of a VM through `pasta`, of the passt project.
//!
//! `pasta` copies addresses and routes of the host's outward interface into the VM's network
//! namespace, and carries what goes out over ordinary sockets of its own process. So nothing needs
//! root, and nobody reaches the VM. The VM reaches what the host reaches, but for the host's own
//! loopback, and the address that it now shares with the host.

mod resolver;

use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    Access, AtFlags, CWD, MemfdFlags, Mode, OFlags, accessat, memfd_create, mkfifoat, open,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, set_parent_process_death_signal,
};

pub use resolver::GuestResolver;

use crate::error::SysError;

/// Setting up takes milliseconds.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// The program `pasta` on this machine.
#[derive(Clone, Debug)]
pub struct Pasta {
    program: PathBuf,
}

/// A running `pasta`. Ends, and with it the VM's network, when this is dropped; also when our
/// process is killed.
#[derive(Debug)]
pub struct PastaGuard {
    pid: u32,
    resolver: GuestResolver,
    /// Dropping it tells the keeper to end pasta.
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Pasta {
    /// Where the package puts it. Does not start it.
    pub fn find() -> Option<Self> {
        [
            "/usr/bin",
            "/usr/local/bin",
            "/bin",
            "/run/current-system/sw/bin",
        ]
        .into_iter()
        .map(|dir| Path::new(dir).join("pasta"))
        .find(|path| path.exists())
        .map(|program| Self { program })
    }

    /// Whether this user may use the device that pasta carries traffic through. Some machines lack
    /// it, and some keep it for root.
    pub fn device_is_usable() -> bool {
        let rights = Access::READ_OK | Access::WRITE_OK;
        accessat(CWD, "/dev/net/tun", rights, AtFlags::EACCESS).is_ok()
    }

    /// Uses this program.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
        }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The first line of what it says about its version.
    pub fn version(&self) -> Option<String> {
        let output = Command::new(&self.program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().map(str::to_owned)
    }

    /// Connects the network namespace of process `init` (a pid as we see it), through the user
    /// namespace of that process. Returns when addresses and routes are there.
    ///
    /// `scratch` is a directory of ours, in which a name is needed for a moment. Blocks for some
    /// milliseconds.
    ///
    /// # Errors
    ///
    /// With what pasta said, when it ends instead of getting ready. Nothing is left behind.
    pub fn attach(&self, init: u32, scratch: &Path) -> Result<PastaGuard, SysError> {
        let resolver = GuestResolver::of_this_host();
        let ready = ReadyPipe::new(scratch)?;
        let said = memfd_create("pasta-stderr", MemfdFlags::CLOEXEC)
            .map_err(|e| SysError::new("making a place for the messages of pasta", e))?;
        let mut said = fs::File::from(said);
        let messages = said
            .try_clone()
            .map_err(|e| SysError::new("making a place for the messages of pasta", e))?;
        let mut command = Command::new(&self.program);
        command
            .args(arguments(&resolver))
            // A shared network stays when the process by which it was found has ended.
            .arg("--no-netns-quit")
            .arg("--pid")
            .arg(&ready.path)
            .arg(init.to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(messages);
        die_with_parent(&mut command);
        let (mut guard, ended) = keep(command, &self.program, resolver)?;
        match ready.wait(&ended) {
            Ok(()) => Ok(guard),
            Err(source) => {
                guard.stop();
                let mut text = String::new();
                // Without its words, the kind of end is all that we can say.
                drop(said.rewind().and_then(|()| said.read_to_string(&mut text)));
                let source = match text.lines().rfind(|line| !line.contains("syslog")) {
                    Some(line) => io::Error::other(line.to_owned()),
                    None => source,
                };
                Err(SysError::new(
                    format!("connecting the network of process {init} by pasta"),
                    source,
                ))
            }
        }
    }
}

impl PastaGuard {
    /// Pid of pasta, as we see it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What belongs into the VM's `/etc/resolv.conf`.
    pub fn resolver(&self) -> &GuestResolver {
        &self.resolver
    }

    /// Ends pasta, and waits for its end. A second call does nothing.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            // The keeper does not panic.
            drop(keeper.join());
        }
    }
}

impl Drop for PastaGuard {
    fn drop(&mut self) {
        self.stop();
    }
}

/// All but the pid file and the target.
fn arguments(resolver: &GuestResolver) -> Vec<String> {
    let mut arguments: Vec<String> = ["--foreground", "--quiet", "--config-net", "--no-map-gw"]
        .map(str::to_owned)
        .to_vec();
    // Neither side's ports appear at the other one.
    for ports in ["--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"] {
        arguments.extend([ports.to_owned(), "none".to_owned()]);
    }
    for address in resolver.forwarded() {
        arguments.extend(["--dns-forward".to_owned(), address.to_string()]);
    }
    if rustix::process::geteuid().is_root() {
        // Otherwise it becomes `nobody`, who may not enter a user namespace that root made. It
        // gives up all capabilities but those in that namespace, and sees an empty file system.
        arguments.extend(["--runas".to_owned(), "0".to_owned()]);
    }
    arguments
}

/// Has the kernel kill the child when the thread that starts it ends.
fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: needed as `Command` has no safe way for it. The closure makes two system calls, and
    // neither allocates nor locks, which is what is allowed between fork and exec.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have ended before the call above.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ESRCH))
            }
        });
    }
}

/// Starts the command on a thread of its own, which stays until it is told to end the child: the
/// signal at the parent's death is really one at the death of the parent's *thread*, and threads
/// of callers come and go.
fn keep(
    mut command: Command,
    program: &Path,
    resolver: GuestResolver,
) -> Result<(PastaGuard, OwnedFd), SysError> {
    let (started, answer) = mpsc::channel::<io::Result<(u32, OwnedFd)>>();
    let (stop, stopped) = mpsc::channel::<()>();
    let run = move || {
        let mut child: Child = match command.spawn() {
            Ok(child) => child,
            Err(e) => {
                drop(started.send(Err(e)));
                return;
            }
        };
        // Closes our copies of what the child got: its end must be visible.
        drop(command);
        // The child is not waited for yet, so that the pid is its own.
        let process = Pid::from_child(&child);
        let ended = pidfd_open(process, PidfdFlags::empty()).map_err(io::Error::from);
        drop(started.send(ended.map(|ended| (child.id(), ended))));
        // Never gets a message: ends when the sender is dropped.
        let _ = stopped.recv();
        drop(child.kill());
        drop(child.wait());
    };
    let doing = || format!("starting {}", program.display());
    let keeper = std::thread::Builder::new()
        .name("hm-vm-pasta".into())
        .stack_size(64 * 1024)
        .spawn(run)
        .map_err(|e| SysError::new(doing(), e))?;
    let (pid, ended) = answer
        .recv()
        .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
        .map_err(|e| SysError::new(doing(), e))?;
    let guard = PastaGuard {
        pid,
        resolver,
        stop: Some(stop),
        keeper: Some(keeper),
    };
    Ok((guard, ended))
}

/// A fifo that pasta takes for its pid file: it writes to it when all is set up.
struct ReadyPipe {
    path: PathBuf,
    reader: OwnedFd,
}

impl ReadyPipe {
    fn new(scratch: &Path) -> Result<Self, SysError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = scratch.join(format!("pasta-{}-{number}", std::process::id()));
        let doing = || format!("making the fifo {}", path.display());
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).map_err(|e| SysError::new(doing(), e))?;
        match open(
            &path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(reader) => Ok(Self { path, reader }),
            Err(e) => {
                let error = SysError::new(doing(), e);
                drop(fs::remove_file(&path));
                Err(error)
            }
        }
    }

    /// Waits for a pid in it, or for the end of pasta.
    fn wait(&self, ended: &OwnedFd) -> io::Result<()> {
        let timeout = Timespec::try_from(READY_TIMEOUT).map_err(io::Error::other)?;
        let mut fds = [
            PollFd::new(&self.reader, PollFlags::IN),
            PollFd::new(ended, PollFlags::IN),
        ];
        // As long as nobody has opened the other side, a fifo shows no hang-up.
        if poll(&mut fds, Some(&timeout))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut bytes = [0; 16];
        match rustix::io::read(&self.reader, &mut bytes) {
            Err(rustix::io::Errno::AGAIN) | Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) => Err(e.into()),
            Ok(_) => Ok(()),
        }
    }
}

impl Drop for ReadyPipe {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests;
