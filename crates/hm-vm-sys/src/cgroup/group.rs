//! The group of one VM.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::files;
use super::machine::Version;
use super::systemd::Scope;
use crate::error::SysError;

/// How long to wait for processes that were killed to be gone. They may be in the kernel, on a
/// slow disk for instance.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What the processes of a group used, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupStats {
    /// Processor time. `None` if the hierarchy does not count it.
    pub cpu: Option<Duration>,
    /// Most memory at any one time, in bytes. `None` without the memory controller, or in v2
    /// before Linux 5.19.
    pub memory_peak: Option<u64>,
    /// Processes that the kernel killed because the memory limit was reached.
    pub oom_kills: u64,
    /// Forks that failed because the limit of processes was reached.
    pub pids_max_events: u64,
}

/// One directory of a group: there is one in each hierarchy that limits something.
#[derive(Debug)]
pub(super) struct GroupDir {
    pub(super) path: PathBuf,
    pub(super) version: Version,
    /// Counts processor time although it is v1.
    pub(super) cpuacct: bool,
}

/// How processes get into the group.
#[derive(Debug)]
pub(super) enum Entrance {
    /// By writing to `cgroup.procs`.
    Files,
    /// By asking systemd, which may move processes across the borders of delegation.
    Systemd { scope: Arc<Scope>, name: String },
}

/// The control group of one VM, or one for each v1 controller. Dropping it kills what is left
/// inside, and removes it.
#[derive(Debug)]
pub struct Cgroup {
    dirs: Vec<GroupDir>,
    entrance: Entrance,
}

impl Cgroup {
    pub(super) fn new() -> Self {
        Self {
            dirs: Vec::new(),
            entrance: Entrance::Files,
        }
    }

    pub(super) fn add(&mut self, dir: GroupDir) {
        self.dirs.push(dir);
    }

    pub(super) fn enter_by(&mut self, entrance: Entrance) {
        self.entrance = entrance;
    }

    /// Whether a process enters by writing `0` to each of [`procs_files`](Self::procs_files).
    /// Otherwise its parent must call [`attach`](Self::attach) while it waits.
    pub fn can_be_entered(&self) -> bool {
        matches!(self.entrance, Entrance::Files)
    }

    /// The `cgroup.procs` files, opened for writing, closed on exec. The kernel checks the rights
    /// of the one who opened them, so that the child can use them whoever it is by then (since
    /// Linux 5.16; before, the rights of the writer).
    ///
    /// # Errors
    ///
    /// When one cannot be opened.
    pub fn procs_files(&self) -> Result<Vec<OwnedFd>, SysError> {
        self.dirs
            .iter()
            .map(|dir| {
                let path = dir.path.join("cgroup.procs");
                fs::OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .map(OwnedFd::from)
                    .map_err(|e| SysError::new(format!("opening {}", path.display()), e))
            })
            .collect()
    }

    /// Moves a process of ours into the group. Its children of later are born there.
    ///
    /// # Errors
    ///
    /// When the process is gone, or the kernel or systemd refuses.
    pub fn attach(&self, pid: u32) -> Result<(), SysError> {
        match &self.entrance {
            Entrance::Systemd { scope, name } => scope.attach(name, pid),
            Entrance::Files => self
                .dirs
                .iter()
                .try_for_each(|dir| files::write(&dir.path.join("cgroup.procs"), &pid.to_string())),
        }
    }

    /// Kills all processes of the group, and waits until there are none. Forks while it does so
    /// do not escape.
    ///
    /// # Errors
    ///
    /// When some are still there after ten seconds.
    pub fn kill(&self) -> Result<(), SysError> {
        self.dirs.iter().try_for_each(|dir| kill_all(&dir.path))
    }

    /// What was used so far. What the kernel does not tell is `None` or 0.
    pub fn stats(&self) -> CgroupStats {
        let mut stats = CgroupStats::default();
        for dir in &self.dirs {
            let file = |name: &str| dir.path.join(name);
            let pids = files::number_of(&file("pids.events"), "max");
            stats.pids_max_events += pids.unwrap_or(0);
            let (cpu, peak, kills) = match dir.version {
                Version::V2 => (
                    files::number_of(&file("cpu.stat"), "usage_usec").map(Duration::from_micros),
                    files::number(&file("memory.peak")),
                    files::number_of(&file("memory.events"), "oom_kill"),
                ),
                Version::V1 => (
                    dir.cpuacct
                        .then(|| files::number(&file("cpuacct.usage")))
                        .flatten()
                        .map(Duration::from_nanos),
                    files::number(&file("memory.max_usage_in_bytes")),
                    files::number_of(&file("memory.oom_control"), "oom_kill"),
                ),
            };
            stats.cpu = stats.cpu.or(cpu);
            stats.memory_peak = stats.memory_peak.or(peak);
            stats.oom_kills += kills.unwrap_or(0);
        }
        stats
    }

    /// Removes the group. Its processes must have ended; the kernel may need a moment to let go of
    /// them, which this waits for. A second call does nothing.
    ///
    /// # Errors
    ///
    /// When processes are still inside after ten seconds.
    pub fn remove(&self) -> Result<(), SysError> {
        self.dirs.iter().try_for_each(|dir| remove_tree(&dir.path))
    }

    /// The directories, for messages.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(|dir| dir.path.as_path())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // The common case: empty or removed. Failures are left to the next recovery.
            if fs::remove_dir(&dir.path).is_err() && dir.path.exists() {
                drop(kill_all(&dir.path));
                drop(remove_tree(&dir.path));
            }
        }
    }
}

/// Kills all processes of a group and of those below it.
pub(super) fn kill_all(dir: &Path) -> Result<(), SysError> {
    let deadline = Instant::now() + END_TIMEOUT;
    let at_once = dir.join("cgroup.kill");
    let mut pause = Pause::new();
    loop {
        // Since Linux 5.14, in v2 only.
        if at_once.exists() {
            files::write(&at_once, "1")?;
        } else {
            kill_each(dir)?;
        }
        match members(dir) {
            Ok(pids) if pids.is_empty() => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            _ if Instant::now() > deadline => {
                return Err(SysError::new(
                    format!("ending the processes in {}", dir.display()),
                    io::Error::from_raw_os_error(libc::ETIMEDOUT),
                ));
            }
            _ => pause.wait(),
        }
    }
}

/// Kills the processes that are in the group now. A pid that was read may belong to somebody else
/// by the time of the kill: the second look, after the process is held by a descriptor, tells.
fn kill_each(dir: &Path) -> Result<(), SysError> {
    let read = || match members(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|e| SysError::new(format!("reading {}", dir.display()), e)),
    };
    let held: Vec<(Pid, OwnedFd)> = read()?
        .into_iter()
        .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)))
        .collect();
    let still = read()?;
    for (pid, process) in held {
        if still.contains(&pid) {
            // Gone already, or gone now.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
    Ok(())
}

fn members(dir: &Path) -> io::Result<Vec<Pid>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.parse().ok().and_then(Pid::from_raw))
        .collect())
}

/// Removes a group and those below it.
pub(super) fn remove_tree(dir: &Path) -> Result<(), SysError> {
    let deadline = Instant::now() + END_TIMEOUT;
    let mut pause = Pause::new();
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if Instant::now() > deadline => {
                return Err(SysError::new(
                    format!("removing the control group {}", dir.display()),
                    e,
                ));
            }
            Err(_) => {
                for child in child_dirs(dir) {
                    remove_tree(&child)?;
                }
                pause.wait();
            }
        }
    }
}

/// The groups directly below a group.
pub(super) fn child_dirs(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Waits between attempts: v1 has nothing that could be waited on for a group to become empty.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(Duration::from_micros(50))
    }

    fn wait(&mut self) {
        std::thread::sleep(self.0);
        self.0 = (self.0 * 2).min(Duration::from_millis(20));
    }
}
