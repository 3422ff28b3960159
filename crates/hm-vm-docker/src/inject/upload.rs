//! Sending a tree to the daemon.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use bytes::Bytes;
use hm_vm_core::Progress;
use hm_vm_store::inject::{SourceDirectory, Tree};
use tokio::sync::{mpsc, oneshot};

use super::archive::{self, Contents, Unfinished};
use super::scan::contract;
use crate::backend::Machine;
use crate::error::{DockerError, Doing as _};

/// Pieces of the archive that may wait for the daemon.
const WAITING: usize = 4;

/// The client's own limit counts from the first byte of the request: a large tree takes as long as it takes.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A daemon that takes nothing for so long, or does not answer after the last byte, is given up.
const STALL: Duration = Duration::from_secs(600);

/// How long is waited for the reason when sending has failed.
const REASON: Duration = Duration::from_secs(5);

/// What to send where.
pub(super) struct Upload {
    /// Id of the container.
    pub(super) container: String,
    /// A directory that exists in it.
    pub(super) directory: String,
    /// Directories below it that do not exist, from the outermost.
    pub(super) prefix: Vec<String>,
    pub(super) tree: Arc<Tree>,
    pub(super) source: PathBuf,
    pub(super) progress: Progress,
}

impl Upload {
    /// Sends it. When the future of this is dropped, the daemon's stream is cut.
    pub(super) async fn send(self, machine: &Machine) -> Result<()> {
        let docker = machine.engine.docker().clone().with_timeout(NO_LIMIT);
        let (alive, dropped) = oneshot::channel::<()>();
        let sent = machine.engine.run(async move {
            tokio::select! {
                sent = self.run(&docker) => sent,
                _ = dropped => Ok(()),
            }
        });
        let sent = sent.await;
        drop(alive);
        sent
    }

    async fn run(self, docker: &bollard::Docker) -> Result<()> {
        let doing = format!("sending files to {} of a container", self.directory);
        let options = UploadToContainerOptionsBuilder::default()
            .path(&self.directory)
            .build();
        let container = self.container.clone();
        let (pieces, mut taken) = mpsc::channel::<io::Result<Bytes>>(WAITING);
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let body = futures_util::stream::poll_fn(move |context| {
            counted.fetch_add(1, Ordering::Relaxed);
            taken.poll_recv(context)
        });
        let mut writing = tokio::task::spawn_blocking(move || self.write(&pieces));
        let sending =
            docker.upload_to_container(&container, Some(options), bollard::body_try_stream(body));
        let sent = tokio::select! {
            sent = sending => sent.doing(doing.as_str()).map_err(DockerError::contract),
            () = stalled(&count) => Err(DockerError::Nonsense {
                doing,
                detail: format!("it takes nothing since {} s", STALL.as_secs()),
            }
            .into()),
        };
        let written = match &sent {
            Ok(()) => (&mut writing).await,
            // Why nothing more came says more than that nothing more came.
            Err(_) => match tokio::time::timeout(REASON, &mut writing).await {
                Ok(written) => written,
                Err(_) => return sent,
            },
        };
        match written.context("reading the files to inject")? {
            Err(Unfinished::Source(error)) => Err(contract(error)),
            Err(Unfinished::Stopped) if sent.is_ok() => Err(DockerError::Nonsense {
                doing: "sending files to a container".into(),
                detail: "it has not taken all of them".into(),
            }
            .into()),
            _ => sent,
        }
    }

    /// Makes the archive. A failure cuts the stream: the daemon must not take a part for the whole.
    fn write(&self, pieces: &mpsc::Sender<io::Result<Bytes>>) -> Result<(), Unfinished> {
        let written = SourceDirectory::open(&self.source)
            .map_err(Unfinished::from)
            .and_then(|source| {
                let contents = Contents {
                    tree: &self.tree,
                    source: &source,
                    prefix: &self.prefix,
                    progress: &self.progress,
                };
                archive::write(&contents, &mut |piece| {
                    pieces.blocking_send(Ok(piece.into())).is_ok()
                })
            });
        if written.is_err() {
            let _ = pieces.blocking_send(Err(io::Error::other("the files cannot be read")));
        }
        written
    }
}

/// Ends when `count` stays the same for too long.
async fn stalled(count: &AtomicU64) {
    let mut before = count.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(STALL).await;
        let now = count.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}
