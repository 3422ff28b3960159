//! A started container's helper.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bollard::container::LogOutput;
use bollard::models::ContainerState;
use bollard::query_parameters::{AttachContainerOptionsBuilder, KillContainerOptionsBuilder};
use futures_util::StreamExt as _;
use hm_vm_core::{Cancellation, Error, VmConfig};
use hm_vm_sys::helper::{Hello, Nonce, ReportKind, probe_frame, remove_frame};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::job::{Connection, Ended, Job, Lost, Running};
use super::outcome::out_of_memory;
use super::output::{JobSide, pipes};
use crate::backend::Machine;
use crate::container::Container;
use crate::error::{DockerError, Doing as _};

/// Time in which a started helper must say hello.
const HELLO_TIME: Duration = Duration::from_secs(60);

/// Time in which the daemon must kill a container, or say what has become of one.
const LAST_RESORT_TIME: Duration = Duration::from_secs(20);

/// Between two looks at a container that is about to end.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The helper of one started container. Clones are the same helper.
#[derive(Clone)]
pub(crate) struct Attached {
    inner: Arc<Inner>,
}

struct Inner {
    machine: Arc<Machine>,
    id: String,
    /// Held while a job runs. `None` once it is lost.
    connection: Mutex<Option<Connection>>,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached")
            .field("container", &self.inner.id)
            .finish_non_exhaustive()
    }
}

impl Attached {
    /// Starts a container, and its helper with it.
    ///
    /// # Errors
    ///
    /// A failure of the daemon, or the helper cannot run.
    pub(crate) async fn start(machine: &Arc<Machine>, container: &Container) -> Result<Self> {
        let (owner, id) = (Arc::clone(machine), container.id().to_owned());
        machine
            .engine
            .run(async move {
                let connection = match connect(&owner, &id).await {
                    // Somebody has pruned volumes before this container had the helper's.
                    Err(error) if helper_is_missing(&error) => {
                        crate::helper::refill(&owner).await?;
                        connect(&owner, &id).await?
                    }
                    other => other?,
                };
                Ok(Self {
                    inner: Arc::new(Inner {
                        machine: owner,
                        id,
                        connection: Mutex::new(Some(connection)),
                    }),
                })
            })
            .await
    }

    /// Runs a job to its end. Must be called on the engine's thread: dropping the future loses the helper.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] when the helper was killed for the memory of the command, [`Error::VmLost`] or
    /// [`DockerError::Incomplete`] when there is no report.
    pub(crate) async fn run(&self, job: Job, side: JobSide, config: &VmConfig) -> Result<Ended> {
        let mut held = self.inner.connection.lock().await;
        // Until it has ended well, it is lost.
        let Some(mut connection) = held.take() else {
            return Err(lost("its helper is gone").into());
        };
        let stop = job.stop.clone();
        match Running::new(&mut connection, job, side).end().await {
            Ok(ended) => {
                *held = Some(connection);
                Ok(ended)
            }
            Err(Lost::Silent) => {
                drop(connection);
                self.kill().await?;
                // Everything is dead, as it was to be.
                match stop.cause() {
                    Some(cause) => Err(Error::from(cause).into()),
                    None => Err(lost("its helper did not answer, and was killed").into()),
                }
            }
            Err(Lost::Connection(detail)) => {
                drop(connection);
                Err(self.explain(detail, config).await)
            }
        }
    }

    /// Whether there is no way to the helper any more.
    pub(crate) async fn is_lost(&self) -> bool {
        self.inner.connection.lock().await.is_none()
    }

    /// Removes files of the VM: files, or directories that are empty by then, relative to `base`. What is not there is fine.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub(crate) async fn remove_paths(&self, base: &str, paths: Vec<Vec<u8>>) -> Result<()> {
        let nonce = nonce();
        let frame = remove_frame(&nonce, base, &paths)?;
        match self.ask(nonce, frame).await?.report.kind {
            ReportKind::Done(0) => Ok(()),
            ReportKind::Done(errno) => Err(std::io::Error::from_raw_os_error(errno))
                .with_context(|| format!("removing files of {base} in the VM")),
            other => Err(lost(&format!("its helper answers {other:?}")).into()),
        }
    }

    /// Whether something accepts connections on this TCP port of the container's loopback address.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub(crate) async fn accepts(&self, port: u16) -> Result<bool> {
        let nonce = nonce();
        let frame = probe_frame(&nonce, port);
        match self.ask(nonce, frame).await?.report.kind {
            ReportKind::Done(answer) => Ok(answer != 0),
            other => Err(lost(&format!("its helper answers {other:?}")).into()),
        }
    }

    /// A job without output, which cannot be stopped.
    async fn ask(&self, nonce: Nonce, frame: Vec<u8>) -> Result<Ended> {
        let job = Job {
            frame,
            nonce,
            stop: Cancellation::new(),
            grace: Duration::ZERO,
        };
        let helper = self.clone();
        let (side, _watcher) = pipes();
        self.inner
            .machine
            .engine
            .run(async move { helper.run(job, side, &VmConfig::default()).await })
            .await
    }

    /// Kills the container from outside.
    async fn kill(&self) -> Result<()> {
        let id = &self.inner.id;
        let doing = format!("killing container {id}");
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        let docker = self.inner.machine.engine.docker();
        match timeout(LAST_RESORT_TIME, docker.kill_container(id, Some(options))).await {
            Err(_) => Err(lost("neither its helper nor the daemon answer").into()),
            Ok(killed) => match killed.doing(doing) {
                Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
                other => Ok(other?),
            },
        }
    }

    /// Why the connection ended before its time.
    async fn explain(&self, detail: String, config: &VmConfig) -> anyhow::Error {
        let id = &self.inner.id;
        let state = match timeout(LAST_RESORT_TIME, self.last_state()).await {
            Ok(Ok(state)) => state,
            Ok(Err(error)) => return incomplete(id, format!("{detail}; then {error}")),
            Err(_) => return incomplete(id, format!("{detail}; then the daemon did not answer")),
        };
        if state.oom_killed == Some(true) && config.memory_mib.is_some() {
            return out_of_memory(config).into();
        }
        match state.exit_code {
            // The helper ends so when its input does: the connection was lost, and not it.
            Some(0) | None => incomplete(id, detail),
            Some(code) => lost(&format!("its first process ended with {code}: {detail}")).into(),
        }
    }

    /// The state of the container when its first process has ended, as it does when its connection is gone. The daemon knows that
    /// a moment later than we.
    async fn last_state(&self) -> Result<ContainerState, DockerError> {
        let id = &self.inner.id;
        let docker = self.inner.machine.engine.docker();
        loop {
            let found = docker
                .inspect_container(id, None)
                .await
                .doing(format!("looking at container {id}"))?;
            let state = found.state.unwrap_or_default();
            if state.running != Some(true) {
                return Ok(state);
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

fn lost(reason: &str) -> Error {
    Error::VmLost {
        reason: reason.into(),
    }
}

fn incomplete(id: &str, detail: String) -> anyhow::Error {
    DockerError::Incomplete {
        doing: format!("running a command in container {id}"),
        detail,
    }
    .into()
}

/// A nonce that nobody can guess.
pub(crate) fn nonce() -> Nonce {
    let mut random = [0; Nonce::SIZE];
    // Nothing but an interruption before the kernel has entropy can fail here; it is asked again.
    while rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).is_err() {}
    Nonce::new(random)
}

/// Attaches first, so that nothing of what the helper says is missed, and starts.
async fn connect(machine: &Machine, id: &str) -> Result<Connection> {
    let docker = machine.engine.docker();
    let options = AttachContainerOptionsBuilder::new()
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .stream(true)
        .build();
    let attached = docker
        .attach_container(id, Some(options))
        .await
        .doing(format!("attaching to container {id}"))
        .map_err(DockerError::contract)?;
    docker
        .start_container(id, None)
        .await
        .doing(format!("starting container {id}"))
        .map_err(DockerError::contract)?;
    let mut connection = Connection {
        input: attached.input,
        output: attached.output,
    };
    timeout(HELLO_TIME, hello(&mut connection, id))
        .await
        .map_err(|_| lost("its helper did not say hello"))??;
    Ok(connection)
}

/// Waits until the helper runs.
async fn hello(connection: &mut Connection, id: &str) -> Result<()> {
    let mut said = Vec::new();
    while said.len() < Hello::SIZE {
        match connection.output.next().await {
            Some(Ok(LogOutput::StdOut { message })) => said.extend_from_slice(&message),
            Some(Ok(other)) => return Err(incomplete(id, format!("it says: {other}"))),
            Some(Err(error)) => return Err(incomplete(id, error.to_string())),
            None => return Err(incomplete(id, "it ended before it said hello".into())),
        }
    }
    let Ok(said) = <&[u8; Hello::SIZE]>::try_from(said.as_slice()) else {
        return Err(incomplete(id, "it says more than hello".into()));
    };
    Hello::parse(said).map_err(|error| lost(&error.to_string()))?;
    Ok(())
}

/// Whether a start failed because the helper's program was not there.
fn helper_is_missing(error: &anyhow::Error) -> bool {
    let words = format!("{error:#}");
    words.contains(crate::container::HELPER_PROGRAM) && words.contains("no such file")
}
