//! One VM.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use hm_vm_core::{
    Cancellation, Error, ExecOutcome, ExecRequest, InjectSource, OutputSink, Progress, SnapshotId,
    SnapshotLabel, Stream, Terminal, Vm, VmConfig,
};
use hm_vm_store::VmFiles;
use hm_vm_sys::UserNamespace;
use hm_vm_sys::launch::{Launch, Namespaces};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::backend::Machine;
use crate::command::{Run, SHELL, WorkingDirectory, command_line};
use crate::disk::Disk;
use crate::environment::{environment, provided_files};
use crate::error::contract;
use crate::exec::{self, Ended, Hold, Output, Watched};
use crate::limits::Confinement;
use crate::mounts::Mounts;
use crate::network::Network;
use crate::plan::{self, Surroundings};
use crate::private_network::Shared;
use crate::terminal;
use crate::user::{self, User};

/// A VM: its files, and what it may use.
#[derive(Debug)]
pub(crate) struct SandboxVm {
    machine: Arc<Machine>,
    files: Option<Arc<VmFiles>>,
    config: VmConfig,
    /// Where its files are written, if their size is limited.
    disk: Option<Arc<Disk>>,
    /// How many commands it has run.
    mounts: AtomicU64,
    /// Held while a command runs, or files go in: an overlay's upper directory serves one mount.
    busy: Arc<Mutex<()>>,
}

impl SandboxVm {
    /// A VM with these files.
    ///
    /// # Errors
    ///
    /// When the file system for its limited disk cannot be made.
    pub(crate) fn new(machine: Arc<Machine>, files: VmFiles, config: VmConfig) -> Result<Self> {
        let disk = match config.disk_size_gb {
            Some(gb) => Some(Arc::new(Disk::new(machine.store.root(), &files, gb)?)),
            None => None,
        };
        Ok(Self {
            machine,
            files: Some(Arc::new(files)),
            config,
            disk,
            mounts: AtomicU64::new(0),
            busy: Arc::default(),
        })
    }

    /// Waits until nothing else uses the VM's files, also nothing that was dropped.
    async fn busy(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.busy).lock_owned().await
    }

    /// Brings what the VM wrote to a limited disk into the store. The work goes on when the future
    /// is dropped, and keeps the VM busy.
    async fn settle(&self, busy: &Arc<OwnedMutexGuard<()>>) -> Result<()> {
        let Some(disk) = &self.disk else {
            return Ok(());
        };
        let (disk, files) = (Arc::clone(disk), Arc::clone(self.files()?));
        let busy = Arc::clone(busy);
        let settled = tokio::task::spawn_blocking(move || {
            let settled = disk.settle(&files);
            drop((disk, files, busy));
            settled
        });
        settled.await.context("copying what the VM wrote")?
    }

    /// Makes the VM busy with one command.
    async fn hold(&self, request: &ExecRequest<'_>) -> Result<Arc<Hold>> {
        let busy = self.busy().await;
        request.stop.check()?;
        let files = Arc::clone(self.files()?);
        Ok(Arc::new(Hold {
            network: match request.network {
                Some(network) => {
                    let namespace = self.machine.namespace_for(&self.config)?;
                    Some(Shared::of(network, &namespace)?)
                }
                None => None,
            },
            mounts: match request.mounts {
                [] => None,
                asked => Some(Mounts::new(asked, &self.machine.store)?),
            },
            confinement: self.machine.limits.confine(&self.config)?,
            files,
            _disk: self.disk.clone(),
            _busy: busy,
        }))
    }

    fn files(&self) -> Result<&Arc<VmFiles>> {
        self.files.as_ref().context("the VM has been destroyed")
    }

    /// Everything about one launch but its standard streams.
    fn prepare(&self, request: &ExecRequest<'_>, run: &Run<'_>) -> Result<Launch> {
        let files = self.files()?;
        let store = self.machine.store.root();
        let defaults = files.defaults();
        let working_dir = WorkingDirectory::new(request.working_dir, defaults)?;
        let namespace = self.machine.namespace_for(&self.config)?;
        let user = self.user_of(request, &namespace)?;
        let ids = user.as_ref().map_or((0, 0), User::ids);
        for stream in run.output {
            user::give(stream, ids, &namespace).context("giving a stream to the command's user")?;
        }
        let mut env = environment(&defaults.env, request.env, user.as_ref())?;
        if run.terminal.is_some() && !env.iter().any(|pair| pair.as_bytes().starts_with(b"TERM=")) {
            env.push(c"TERM=xterm-256color".into());
        }
        let (argv, script) = command_line(request.cmd)?;
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        let (reached, upper, work) = match &self.disk {
            Some(disk) => (disk.inside("work"), disk.upper(), disk.work()),
            None => (store.join(files.work()), files.upper(), files.work()),
        };
        put_work_aside(&reached, number)?;
        let (host, lowers) = self.machine.lowers(files, &self.config)?;
        let provided = provided_files(run.network.resolv_conf(), run.network.names());
        let around = Surroundings {
            store,
            lowers,
            upper,
            work,
            translate_owners: self.machine.translates(&self.config),
            host,
            cgroup: run.confinement.entrances()?,
            disk: self.disk.as_ref().map(|disk| disk.mount()),
            network: run.network,
            user: user.as_ref(),
            user_namespace: &namespace,
            mounts: run.mounts,
            weaker: &self.config.allow_weaker,
            provided: &provided,
            script,
            terminal: run.terminal,
            working_dir,
        };
        let (outer, inner) = (plan::outer(&around)?, plan::inner(&around)?);
        Ok(Launch {
            user_namespace: namespace,
            outer,
            namespaces: Namespaces {
                network: run.network.namespace(),
            },
            inner,
            argv,
            env,
            stdio: run.stdio()?,
            terminal: run.terminal.is_some(),
            gated: run.network.needs_attachment()
                || run.confinement.needs_attachment()
                || user.is_some(),
        })
    }

    /// The user of a request, or of the image, where one of them names one.
    fn user_of(
        &self,
        request: &ExecRequest<'_>,
        namespace: &UserNamespace,
    ) -> Result<Option<User>> {
        let files = self.files()?;
        let Some(asked) = request.user.or(files.defaults().user.as_deref()) else {
            return Ok(None);
        };
        let upper = self.disk.as_ref().map(|disk| disk.inside("upper"));
        User::find(asked, files, upper.as_deref(), namespace).map(Some)
    }

    /// Starts the command, and ties limits and network to it.
    async fn launch(
        &self,
        plan: Launch,
        hold: &Arc<Hold>,
        network: &mut Network,
    ) -> Result<Watched> {
        let mut held = exec::start(plan, Arc::clone(hold)).await?;
        let pid = held.process.pid();
        hold.confinement.attach(pid)?;
        let work = self.machine.store.root().join(hold.files.work());
        let scratch = work.parent().unwrap_or(&work).to_owned();
        network.attach(pid, scratch, Arc::clone(hold)).await?;
        held.process.open_gate()?;
        Watched::new(held)
    }

    /// Turns the account of a command into a result.
    fn judge(
        ended: Ended,
        confinement: &Confinement,
        sink: &dyn OutputSink,
    ) -> Result<ExecOutcome> {
        let mut usage = ended.usage;
        let exceeded = confinement.look(&mut usage);
        if let Some(stopped) = ended.stopped {
            return Err(stopped.into());
        }
        // Whatever the command made of the loss of a process: its result is not that of the same
        // command with enough memory, and must not pass for it in a cache.
        if let Some(exceeded) = exceeded {
            return Err(exceeded.into());
        }
        let Some(end) = ended.end else {
            return Err(Error::VmLost {
                reason: "its first process was killed from outside".into(),
            }
            .into());
        };
        let (exit_code, message) = exec::exit_code(end, SHELL);
        if let Some(message) = message {
            if sink.wants_bytes() {
                sink.on_bytes(Stream::Stderr, format!("{message}\n").as_bytes());
            } else {
                sink.on_stderr(&message);
            }
        }
        Ok(ExecOutcome { exit_code, usage })
    }
}

/// Puts aside what the last mount left in the work directory: it holds the mark of a volatile
/// overlay, which says that a crash may have lost data, and with which the kernel refuses to mount
/// again. Nothing was lost: every process is dead, and the page cache is the kernel's. Renaming is
/// all that an ordinary user may do to that directory, and it goes with the VM.
fn put_work_aside(work: &Path, number: u64) -> Result<()> {
    let last = work.join("work");
    match std::fs::rename(&last, work.join(format!("used-{number}"))) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("renaming {}", last.display())),
    }
}

/// Between SIGTERM and SIGKILL where the caller has no say.
const GRACE: Duration = Duration::from_secs(10);

#[async_trait]
impl Vm for SandboxVm {
    async fn inject(&self, host_path: &Path, guest_path: &str) -> Result<()> {
        let source = InjectSource::directory(host_path);
        self.inject_from(&source, guest_path).await.map(drop)
    }

    async fn inject_from(&self, source: &InjectSource, guest_path: &str) -> Result<Option<String>> {
        let busy = Arc::new(self.busy().await);
        self.settle(&busy).await?;
        let files = Arc::clone(self.files()?);
        let guest_path = match (guest_path, &files.defaults().working_dir) {
            ("", Some(of_image)) => of_image.clone(),
            ("", None) => "/".to_owned(),
            (asked, _) => asked.to_owned(),
        };
        let source = source.clone();
        let injected = tokio::task::spawn_blocking(move || {
            let report = files.inject_from(&source, &guest_path);
            drop((files, busy));
            report
        });
        let report = injected.await.context("injecting files")?;
        Ok(Some(report.map_err(contract)?.digest))
    }

    fn inject_progress(&self) -> Option<Progress> {
        let files = self.files().ok()?;
        Some(files.inject_progress().clone())
    }

    async fn exec(
        &self,
        cmd: &str,
        env: &[(String, String)],
        working_dir: &str,
        sink: &dyn OutputSink,
    ) -> Result<i32> {
        let stop = Cancellation::new();
        let request = ExecRequest {
            env,
            working_dir,
            grace: GRACE,
            ..ExecRequest::new(cmd, &stop)
        };
        Ok(self.exec_with(&request, sink).await?.exit_code)
    }

    async fn snapshot(&mut self, label: &SnapshotLabel) -> Result<SnapshotId> {
        let busy = Arc::new(self.busy().await);
        self.settle(&busy).await?;
        let files = self.files()?;
        let label = match label {
            SnapshotLabel::Ephemeral => None,
            SnapshotLabel::Cached(key) => Some(key.as_str()),
        };
        // Without an await: the snapshot either has an owner, or does not exist.
        files.commit(label).map_err(contract)
    }

    async fn destroy(&mut self) -> Result<()> {
        let _busy = self.busy().await;
        let Some(files) = self.files.take() else {
            return Ok(());
        };
        self.disk = None;
        files.remove().map_err(contract)
    }

    async fn exec_with(
        &self,
        request: &ExecRequest<'_>,
        sink: &dyn OutputSink,
    ) -> Result<ExecOutcome> {
        let hold = self.hold(request).await?;
        let mut network = Network::new(self.config.network, hold.network.clone());
        let (stdout, to_stdout) = exec::output_pipe()?;
        let (stderr, to_stderr) = exec::output_pipe()?;
        let plan = self.prepare(
            request,
            &Run {
                confinement: &hold.confinement,
                network: &network,
                mounts: hold.mounts.as_ref(),
                input: None,
                output: [&to_stdout, &to_stderr],
                terminal: None,
            },
        )?;
        drop((to_stdout, to_stderr));
        let watched = self.launch(plan, &hold, &mut network).await?;
        let output = Output { stdout, stderr };
        let (stopped, ()) = tokio::try_join!(
            watched.ended(request.stop, request.grace),
            output.deliver(sink)
        )?;
        Self::judge(watched.account(stopped), &hold.confinement, sink)
    }

    async fn terminal(&self, request: &ExecRequest<'_>, terminal: Terminal) -> Result<ExecOutcome> {
        let hold = self.hold(request).await?;
        let mut network = Network::new(self.config.network, hold.network.clone());
        let (pty, slave) =
            terminal::Pty::open(&*self.machine.namespace_for(&self.config)?, &terminal)?;
        let plan = self.prepare(
            request,
            &Run {
                confinement: &hold.confinement,
                network: &network,
                mounts: hold.mounts.as_ref(),
                input: Some(&slave),
                output: [&slave, &slave],
                terminal: Some(pty.path()),
            },
        )?;
        drop(slave);
        let watched = self.launch(plan, &hold, &mut network).await?;
        let stopped = {
            let mut relay = std::pin::pin!(pty.relay(terminal, || watched.hang_up()));
            let ended = watched.ended(request.stop, request.grace);
            let mut ended = std::pin::pin!(ended);
            tokio::select! {
                stopped = &mut ended => {
                    // What the session wrote last is still in the terminal.
                    relay.await?;
                    stopped?
                }
                result = &mut relay => {
                    result?;
                    ended.await?
                }
            }
        };
        Self::judge(
            watched.account(stopped),
            &hold.confinement,
            &hm_vm_core::NullSink,
        )
    }
}
