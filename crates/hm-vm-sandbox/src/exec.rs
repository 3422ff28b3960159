//! Running one command: from the launch to the death of its last process.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hm_vm_core::{Cancellation, Error, OutputDecoder, OutputSink, ResourceUsage, Stream};
use hm_vm_store::VmFiles;
use hm_vm_sys::launch::{CommandEnd, Launch, LaunchError, Process, ProcessUsage, launch};
use hm_vm_sys::readiness::watch;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe;
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::sleep;

use crate::disk::Disk;
use crate::limits::Confinement;
use crate::mounts::Mounts;
use crate::private_network::Shared;

/// As much as a pipe holds.
const CHUNK: usize = 64 * 1024;

/// How a command ended, before limits are looked at.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What init says, if it could say something.
    pub(crate) end: Option<CommandEnd>,
    pub(crate) usage: ResourceUsage,
    /// Why it was stopped, if it was.
    pub(crate) stopped: Option<Error>,
}

/// What a VM must not lose while a process of it may live: a command that is dropped while it is
/// being launched dies a moment later, on another thread.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) confinement: Confinement,
    pub(crate) files: Arc<VmFiles>,
    pub(crate) _disk: Option<Arc<Disk>>,
    pub(crate) network: Option<Arc<Shared>>,
    pub(crate) mounts: Option<Mounts>,
    /// The last field: who waits for it finds the others released.
    pub(crate) _busy: OwnedMutexGuard<()>,
}

/// A process, and what it needs. Dropping it kills the process first.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) process: Process,
    _hold: Arc<Hold>,
}

/// Starts the process. Dropping the future kills what it may have started.
pub(crate) async fn start(plan: Launch, hold: Arc<Hold>) -> Result<Held> {
    tracing::trace!(%plan, "launching");
    let (sender, receiver) = oneshot::channel();
    launch(plan, move |result| {
        // If nobody waits any more, the process is dropped here: the VM is killed.
        let _ = sender.send(result.map(|process| Held {
            process,
            _hold: hold,
        }));
    })?;
    match receiver.await.context("the spawner thread is gone")? {
        Ok(held) => Ok(held),
        Err(LaunchError::WorkingDirectory { path, source }) => {
            Err(working_directory_failure(&path, &source).into())
        }
        Err(LaunchError::Mount { target, source }) => Err(mount_failure(target, &source).into()),
        Err(LaunchError::Protection {
            name,
            doing,
            source,
        }) => Err(Error::ProtectionUnavailable {
            protection: name,
            reason: format!("{doing}: {source}"),
        }
        .into()),
        Err(LaunchError::Sys(error)) => Err(error).context("starting the VM"),
    }
}

fn working_directory_failure(path: &str, source: &std::io::Error) -> Error {
    use std::io::ErrorKind;
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::NoSpace {
            doing: format!("making the working directory {path:?}"),
        },
        _ => Error::InvalidInput {
            what: format!("working directory {path:?}"),
            reason: format!("cannot be entered in the VM: {source}"),
        },
    }
}

fn mount_failure(target: String, source: &std::io::Error) -> Error {
    use std::io::ErrorKind;
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::NoSpace {
            doing: format!("making the mount point {target}"),
        },
        kind => Error::InvalidInput {
            what: format!("mount target {target:?}"),
            reason: match kind {
                ErrorKind::NotADirectory => {
                    "it, or something on the way to it, is not a directory in the VM".into()
                }
                ErrorKind::AlreadyExists => {
                    "a symbolic link on the way to it leads nowhere in the VM".into()
                }
                _ => format!("cannot be mounted on in the VM: {source}"),
            },
        },
    }
}

/// A pipe for output: the end to read from, and the end for the process.
pub(crate) fn output_pipe() -> Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = std::io::pipe().context("making a pipe")?;
    rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK).context("preparing a pipe")?;
    let receiver = pipe::Receiver::from_owned_fd(read.into()).context("preparing a pipe")?;
    Ok((receiver, write.into()))
}

/// A process whose end can be waited for.
pub(crate) struct Watched {
    held: Held,
    ended: AsyncFd<OwnedFd>,
    began: Instant,
}

impl Watched {
    pub(crate) fn new(held: Held) -> Result<Self> {
        let pidfd = rustix::io::fcntl_dupfd_cloexec(held.process.pidfd(), 0)
            .context("duplicating a process descriptor")?;
        let ended = watch(pidfd, Interest::READABLE).context("watching the VM's first process")?;
        Ok(Self {
            held,
            ended,
            began: Instant::now(),
        })
    }

    /// Waits for the end of every process of the VM. A stop request ends them: at first by
    /// SIGTERM, after the grace period by SIGKILL. Safe to drop, and to call again.
    pub(crate) async fn ended(
        &self,
        stop: &Cancellation,
        grace: Duration,
    ) -> Result<Option<Error>> {
        tokio::select! {
            biased;
            ended = self.ended.readable() => {
                let _ = ended.context("waiting for the VM")?;
                Ok(None)
            }
            cause = stop.cancelled() => {
                self.end(stop, grace).await?;
                Ok(Some(Error::from(cause)))
            }
        }
    }

    async fn end(&self, stop: &Cancellation, grace: Duration) -> Result<()> {
        if !stop.is_killed() {
            self.held.process.terminate();
            tokio::select! {
                biased;
                ended = self.ended.readable() => {
                    let _ = ended.context("waiting for the VM")?;
                    return Ok(());
                }
                () = stop.killed() => {}
                () = sleep(grace) => {}
            }
        }
        self.held.process.kill();
        let _ = self.ended.readable().await.context("waiting for the VM")?;
        Ok(())
    }

    /// Tells the session that its terminal is gone.
    pub(crate) fn hang_up(&self) {
        self.held.process.hang_up();
    }

    /// The account of a process that has ended.
    pub(crate) fn account(mut self, stopped: Option<Error>) -> Ended {
        let end = self.held.process.command_end();
        let used = self.held.process.reap();
        Ended {
            end,
            usage: usage(self.began.elapsed(), used),
            stopped,
        }
    }
}

fn usage(wall: Duration, used: Option<ProcessUsage>) -> ResourceUsage {
    ResourceUsage {
        wall,
        cpu: used.map(|used| used.cpu),
        peak_memory_bytes: used.map(|used| used.largest_process_bytes),
        written_bytes: used.map(|used| used.written_bytes),
    }
}

/// The two output streams of a command.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

impl Output {
    /// Delivers everything, up to the end of both streams.
    ///
    /// A sink that is slow holds the command back: nothing is read meanwhile.
    pub(crate) async fn deliver(mut self, sink: &dyn OutputSink) -> Result<()> {
        let mut decoder = OutputDecoder::new();
        let mut from_stdout = vec![0; CHUNK];
        let mut from_stderr = vec![0; CHUNK];
        let (mut stdout_open, mut stderr_open) = (true, true);
        while stdout_open || stderr_open {
            let (stream, length) = tokio::select! {
                length = self.stdout.read(&mut from_stdout), if stdout_open => {
                    (Stream::Stdout, length)
                }
                length = self.stderr.read(&mut from_stderr), if stderr_open => {
                    (Stream::Stderr, length)
                }
            };
            let length = length.context("reading the command's output")?;
            let (open, buffer) = match stream {
                Stream::Stdout => (&mut stdout_open, &from_stdout),
                Stream::Stderr => (&mut stderr_open, &from_stderr),
            };
            if length == 0 {
                *open = false;
            } else {
                decoder.push(stream, &buffer[..length], sink);
                // A flood of output into a slow sink must not keep a stop from being noticed.
                tokio::task::yield_now().await;
            }
        }
        decoder.finish(sink);
        Ok(())
    }
}

/// The exit code of rule V1, and a line for standard error where the user needs one.
pub(crate) fn exit_code(end: CommandEnd, program: &str) -> (i32, Option<String>) {
    const NOT_FOUND: i32 = 127;
    const SIGNAL: i32 = 128;
    match end {
        CommandEnd::Exited(code) => (i32::from(code), None),
        CommandEnd::Signaled(signal) => (SIGNAL + i32::from(signal), None),
        CommandEnd::NotExecuted(errno) => {
            let error = std::io::Error::from_raw_os_error(errno);
            (NOT_FOUND, Some(format!("hm-vm: {program}: {error}")))
        }
    }
}
