//! What changes of a VM: its container, and the helper in it.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use hm_vm_core::{Error, InjectSource, Progress, SnapshotLabel, VmConfig};

use crate::backend::Machine;
use crate::container::{self, Container, Shape};
use crate::error::DockerError;
use crate::exec::{Attached, Ended, Job, JobSide};
use crate::image::BaseImage;
use crate::inject::{Inject, Injects, RemovePaths};
use crate::snapshot::{self, Kept, WorkingImage};

/// What changes of a VM. All of it happens on the engine's thread, one thing at a time.
#[derive(Debug)]
pub(super) struct State {
    machine: Arc<Machine>,
    config: VmConfig,
    /// What its container was made from.
    base: BaseImage,
    /// Its helper, once it is started.
    attached: Option<Attached>,
    /// `None` when it is destroyed, or lost.
    container: Option<Container>,
    /// Keeps the container's image. After the container: it must be gone first.
    working: Option<WorkingImage>,
    /// Whether the container may have files that its image does not.
    is_changed: bool,
    /// The last snapshot, while nothing has happened since.
    snapshot: Option<BaseImage>,
    injects: Injects,
    /// Why there is no container any more.
    gone: &'static str,
}

impl State {
    /// A VM with a container of its own, that is not started yet.
    pub(super) async fn new(
        machine: Arc<Machine>,
        base: BaseImage,
        config: VmConfig,
    ) -> Result<Self> {
        let shape = Shape {
            network: crate::network::mode(&machine, config.network).await?,
            ..Shape::default()
        };
        let container = container::create(&machine, &base, "vm", &shape, &config).await?;
        let labels = base.config.labels.clone().unwrap_or_default();
        Ok(Self {
            machine,
            config,
            injects: Injects::from_labels(&labels),
            base,
            attached: None,
            container: Some(container),
            working: None,
            is_changed: false,
            snapshot: None,
            gone: "the VM has been destroyed",
        })
    }

    /// Runs a command in a container of this shape.
    pub(super) async fn run(&mut self, job: Job, shape: Shape, side: JobSide) -> Result<Ended> {
        self.container()?;
        self.check(&job, &side)?;
        self.take(&shape).await?;
        let attached = self.started().await?;
        self.check(&job, &side)?;
        self.is_changed = true;
        self.injects.command_runs();
        let ended = attached.run(job, side, &self.config).await;
        self.settle(&attached, &ended).await;
        ended
    }

    /// Brings files into the VM.
    pub(super) async fn inject(
        &mut self,
        source: &InjectSource,
        guest_path: &str,
        progress: &Progress,
    ) -> Result<String> {
        let shape = self.container()?.shape().clone();
        self.take(&shape).await?;
        self.is_changed = true;
        let machine = Arc::clone(&self.machine);
        let Some(container) = &self.container else {
            return Err(self.lost(self.gone).into());
        };
        let inject = Inject {
            machine: &machine,
            container: container.id(),
            working_dir: self.base.defaults.working_dir.as_deref(),
            source,
            guest_path,
            progress,
        };
        let mut remover = Remover {
            machine: &machine,
            container,
            attached: &mut self.attached,
        };
        inject.bring(&mut self.injects, &mut remover).await
    }

    /// Keeps the state of the VM.
    pub(super) async fn keep(&mut self, label: &SnapshotLabel) -> Result<Kept> {
        let container = self.container()?;
        snapshot::commit(&self.machine, container, &self.base, label, &self.injects).await
    }

    /// The VM may go on from this snapshot: its files are the VM's, and nothing has happened since.
    pub(super) fn was_kept(&mut self, snapshot: &BaseImage) {
        self.machine.images.add(snapshot);
        // A limited disk would be as large again.
        let is_limited = self.config.disk_size_gb.is_some();
        self.snapshot = (!is_limited).then(|| snapshot.clone());
    }

    /// Frees everything.
    pub(super) fn destroy(&mut self) {
        self.give_up("the VM has been destroyed");
    }

    fn give_up(&mut self, gone: &'static str) {
        self.attached = None;
        self.container = None;
        self.working = None;
        self.snapshot = None;
        self.gone = gone;
    }

    fn container(&self) -> Result<&Container> {
        self.container.as_ref().context(self.gone)
    }

    /// Whether the command is still wanted.
    fn check(&self, job: &Job, side: &JobSide) -> Result<(), Error> {
        job.stop.check()?;
        if side.is_abandoned() {
            // Nobody sees this.
            return Err(self.lost("nobody waits for its command"));
        }
        Ok(())
    }

    fn lost(&self, reason: &str) -> Error {
        Error::VmLost {
            reason: reason.into(),
        }
    }

    /// Makes sure that there is a container of this shape with the VM's files. After a snapshot it is one of the snapshot's: what
    /// the next one has beyond it stays small.
    async fn take(&mut self, shape: &Shape) -> Result<()> {
        if let Some(snapshot) = self.snapshot.take() {
            match self.make(&snapshot, shape).await {
                Ok(container) => {
                    self.replace(container, snapshot, None);
                    return Ok(());
                }
                // It was removed meanwhile. The files are here as well.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.container()?.shape() == shape {
            return Ok(());
        }
        if !self.is_changed {
            let base = self.base.clone();
            let container = self.make(&base, shape).await?;
            let working = self.working.take();
            self.replace(container, base, working);
            return Ok(());
        }
        let (base, working) =
            snapshot::keep_working(&self.machine, self.container()?, &self.base, &self.injects)
                .await?;
        let container = self.make(&base, shape).await?;
        self.replace(container, base, Some(working));
        Ok(())
    }

    async fn make(&self, base: &BaseImage, shape: &Shape) -> Result<Container> {
        container::create(&self.machine, base, "vm", shape, &self.config).await
    }

    fn replace(&mut self, container: Container, base: BaseImage, working: Option<WorkingImage>) {
        self.attached = None;
        self.container = Some(container);
        self.working = working;
        self.base = base;
        self.is_changed = false;
    }

    async fn started(&mut self) -> Result<Attached> {
        if let Some(attached) = &self.attached {
            return Ok(attached.clone());
        }
        let container = self.container()?;
        let attached = Attached::start(&self.machine, container)
            .await
            .map_err(|error| crate::mounts::explain(error, container.shape()))?;
        self.attached = Some(attached.clone());
        Ok(attached)
    }

    /// What becomes of the VM when its helper was lost.
    async fn settle(&mut self, attached: &Attached, ended: &Result<Ended>) {
        if !attached.is_lost().await {
            return;
        }
        self.attached = None;
        let is_dead_for_sure = ended.as_ref().is_err_and(|error| {
            matches!(
                error.downcast_ref(),
                Some(
                    Error::LimitExceeded { .. } | Error::Cancelled { .. } | Error::TimedOut { .. }
                )
            )
        });
        if !is_dead_for_sure {
            self.give_up("the VM was lost");
        }
    }
}

/// Whether the daemon says that an image, or a container whose network is to be joined, is not there.
pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    let found: Option<&DockerError> = error.downcast_ref();
    found.is_some_and(DockerError::is_not_found)
}

/// Starts the helper only where there is something to remove.
struct Remover<'a> {
    machine: &'a Arc<Machine>,
    container: &'a Container,
    attached: &'a mut Option<Attached>,
}

#[async_trait]
impl RemovePaths for Remover<'_> {
    async fn remove_paths(&mut self, base: &str, paths: Vec<Vec<u8>>) -> Result<()> {
        let attached = match self.attached {
            Some(attached) => attached,
            None => self
                .attached
                .insert(Attached::start(self.machine, self.container).await?),
        };
        attached.remove_paths(base, paths).await
    }
}
