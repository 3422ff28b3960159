//! One VM.

mod make;
mod state;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use hm_vm_core::{
    Cancellation, ExecOutcome, ExecRequest, InjectSource, NullSink, OutputSink, Progress,
    SnapshotId, SnapshotLabel, Terminal, Vm, VmConfig,
};
use tokio::sync::{Mutex, oneshot};

use crate::backend::Machine;
use crate::container::Shape;
use crate::exec::{self, Command, Ended, Job, JobSide};
use crate::image::{BaseImage, ImageDefaults};
use crate::mounts::Mounts;
use crate::{network, private_network};
pub(crate) use make::{create, restore};
use state::State;

/// Between SIGTERM and SIGKILL where the caller has no say.
const GRACE: Duration = Duration::from_secs(10);

/// A VM: its container, and what it may use.
#[derive(Debug)]
struct DockerVm {
    machine: Arc<Machine>,
    config: VmConfig,
    /// What holds for commands that name nothing else. All images of a VM have the same.
    defaults: ImageDefaults,
    /// Counts what injects bring.
    progress: Progress,
    /// Held while anything is done with the VM, also by what was dropped and goes on.
    state: Arc<Mutex<State>>,
}

impl DockerVm {
    /// A VM with a container of its own, that is not started yet.
    async fn new(machine: &Arc<Machine>, base: BaseImage, config: VmConfig) -> Result<Self> {
        let defaults = base.defaults.clone();
        let state = State::new(Arc::clone(machine), base, config.clone()).await?;
        Ok(Self {
            machine: Arc::clone(machine),
            config,
            defaults,
            progress: Progress::new(),
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Runs a command on the engine's thread. Dropping the future ends it; the VM stays busy until it has ended.
    async fn run(
        &self,
        request: &ExecRequest<'_>,
        command: &Command,
        mounts: &Mounts,
        side: JobSide,
    ) -> Result<Ended> {
        let shape = self.shape(request, mounts).await?;
        let nonce = exec::nonce();
        let job = Job {
            frame: command.frame(&nonce)?,
            nonce,
            stop: request.stop.clone(),
            grace: request.grace,
        };
        let state = Arc::clone(&self.state);
        let work = async move { state.lock_owned().await.run(job, shape, side).await };
        self.machine.engine.run(work).await
    }

    /// The container that a command needs.
    async fn shape(&self, request: &ExecRequest<'_>, mounts: &Mounts) -> Result<Shape> {
        let shape = match request.network {
            Some(network) => private_network::shape(network, &self.machine)?,
            None => Shape {
                network: network::mode(&self.machine, self.config.network).await?,
                ..Shape::default()
            },
        };
        Ok(Shape {
            volumes: mounts.volumes.clone(),
            binds: mounts.binds().to_vec(),
            ..shape
        })
    }
}

#[async_trait]
impl Vm for DockerVm {
    async fn inject(&self, host_path: &Path, guest_path: &str) -> Result<()> {
        let source = InjectSource::directory(host_path);
        self.inject_from(&source, guest_path).await.map(drop)
    }

    async fn inject_from(&self, source: &InjectSource, guest_path: &str) -> Result<Option<String>> {
        let (source, guest_path) = (source.clone(), guest_path.to_owned());
        let (state, progress) = (Arc::clone(&self.state), self.progress.clone());
        let (waits, mut nobody_waits) = oneshot::channel::<()>();
        let work = async move {
            let mut state = state.lock_owned().await;
            tokio::select! {
                brought = state.inject(&source, &guest_path, &progress) => brought,
                // What came in is in the VM's record, and the next inject repairs it.
                _ = &mut nobody_waits => anyhow::bail!("nobody waits for the inject"),
            }
        };
        let brought = self.machine.engine.run(work).await;
        drop(waits);
        brought.map(Some)
    }

    fn inject_progress(&self) -> Option<Progress> {
        Some(self.progress.clone())
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
        let (state, label) = (Arc::clone(&self.state), label.clone());
        let work = async move { state.lock_owned().await.keep(&label).await };
        // Dropped here, the snapshot goes again.
        let kept = self.machine.engine.run(work).await?;
        self.state.lock().await.was_kept(kept.image());
        Ok(kept.take(&self.machine.presence))
    }

    async fn destroy(&mut self) -> Result<()> {
        self.state.lock().await.destroy();
        Ok(())
    }

    async fn exec_with(
        &self,
        request: &ExecRequest<'_>,
        sink: &dyn OutputSink,
    ) -> Result<ExecOutcome> {
        request.stop.check()?;
        let mounts = Mounts::new(&self.machine, request.mounts).await?;
        let command = Command::new(request, &self.defaults, &mounts, None)?;
        let (side, mut watcher) = exec::pipes();
        let run = self.run(request, &command, &mounts, side);
        let (ended, ()) = tokio::join!(run, watcher.deliver(sink));
        Ok(exec::judge(ended?, &command, &self.config, sink)?)
    }

    async fn terminal(&self, request: &ExecRequest<'_>, terminal: Terminal) -> Result<ExecOutcome> {
        request.stop.check()?;
        let size = *terminal.size.borrow();
        let mounts = Mounts::new(&self.machine, request.mounts).await?;
        let command = Command::new(request, &self.defaults, &mounts, Some(size))?;
        let (side, watcher) = exec::pipes();
        let run = self.run(request, &command, &mounts, side);
        let (ended, shown) = tokio::join!(run, crate::terminal::relay(terminal, watcher));
        let outcome = exec::judge(ended?, &command, &self.config, &NullSink)?;
        shown?;
        Ok(outcome)
    }
}
