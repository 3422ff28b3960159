//! Bringing files of a snapshot to the host.
//!
//! The daemon gives archives of the directories in which the patterns look for something. Of these only what the patterns can
//! name is unpacked, into a scratch directory, and the store's own copier and patterns do the rest: what is written is
//! what the sandbox writes, with its protections.
//!
//! A scratch directory is locked while it is in use; whoever copies next removes those that are not.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use hm_vm_core::{Error, OutputReport, OutputRequest, SnapshotId, VmConfig};
use hm_vm_store::{ArchivedOutputs, OpenLinks, OutputPart, StoreError};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::mpsc;

use crate::backend::Machine;
use crate::container::{self, Container, Shape};
use crate::engine::EngineKind;
use crate::error::{DockerError, Doing as _};
use crate::inject::{Found, Place, look};
use crate::objects::nonce;

/// Pieces of an archive that may wait until they are unpacked.
const WAITING: usize = 16;

/// Copies what a request names.
pub(crate) async fn copy(
    machine: &Arc<Machine>,
    snapshot: &SnapshotId,
    request: &OutputRequest,
) -> Result<OutputReport> {
    let outputs = Arc::new(ArchivedOutputs::new(request).map_err(contract)?);
    let missing = || Error::SnapshotNotFound {
        snapshot: snapshot.clone(),
    };
    if !machine.presence.exists(snapshot).await? {
        return Err(missing().into());
    }
    let (engine, id) = (machine.engine.clone(), snapshot.to_string());
    let base = machine
        .engine
        .run(async move { crate::image::inspect(&engine, &id).await })
        .await?
        .ok_or_else(missing)?;
    let (shape, config) = (Shape::default(), VmConfig::default());
    let container = container::create(machine, &base, "reader", &shape, &config)
        .await
        .map_err(|error| match error.downcast_ref::<DockerError>() {
            Some(refused) if refused.is_not_found() => missing().into(),
            _ => error,
        })?;
    let machine = Arc::clone(machine);
    let engine = machine.engine.clone();
    engine
        .run(async move {
            let reader = Reader {
                docker: machine.engine.docker().clone(),
                kind: machine.engine.info().kind,
                container,
            };
            let scratch = Scratch::new(&machine.session.directory().join("scratch"))?;
            for (number, part) in outputs.parts().iter().enumerate() {
                reader.bring(&outputs, part, scratch.make(number)?).await?;
            }
            let work = move || {
                let paths = scratch.paths(outputs.parts().len());
                let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
                outputs.copy(&paths).map_err(contract)
            };
            tokio::task::spawn_blocking(work)
                .await
                .context("copying files of a snapshot")?
        })
        .await
}

/// A container of the snapshot, that never runs.
struct Reader {
    docker: bollard::Docker,
    kind: EngineKind,
    container: Container,
}

/// What to ask the daemon for.
struct Source {
    path: String,
    /// Whether the archive is of one thing, under its own name.
    has_top: bool,
}

impl Reader {
    /// Unpacks what a part has into a directory.
    async fn bring(
        &self,
        outputs: &Arc<ArchivedOutputs>,
        part: &OutputPart,
        to: PathBuf,
    ) -> Result<()> {
        let Some(source) = self.find(part).await? else {
            return Ok(());
        };
        let open = self.unpack(outputs, part, &source, &to, None).await?;
        if let Some(open) = open.filter(|open| !open.is_empty()) {
            // Files that have another name, outside of what is asked for.
            self.unpack(outputs, part, &source, &to, Some(open)).await?;
        }
        Ok(())
    }

    /// Where a part is. `None` when it does not exist.
    async fn find(&self, part: &OutputPart) -> Result<Option<Source>> {
        let id = self.container.id();
        let place = match Place::find(&self.docker, id, &part.directory).await {
            Ok(place) if place.missing.is_empty() => place,
            Ok(_) => return Ok(None),
            Err(error) => {
                return match error.downcast_ref() {
                    Some(Error::InvalidInput { .. }) => Ok(None),
                    _ => Err(error),
                };
            }
        };
        let directory = place.existing.trim_end_matches('/');
        let whole = Source {
            path: match directory {
                "" => "/".into(),
                directory => format!("{directory}/."),
            },
            has_top: false,
        };
        let Some(only) = &part.only else {
            return Ok(Some(whole));
        };
        let path = format!("{directory}/{only}");
        Ok(
            match look(&self.docker, id, &path)
                .await
                .map_err(DockerError::contract)?
            {
                // Podman tells that of links to nowhere, too.
                Found::Nothing if self.kind == EngineKind::Docker => None,
                // Podman gives what the link leads to.
                Found::Nothing | Found::Link(_) if self.kind == EngineKind::Podman => Some(whole),
                _ => Some(Source {
                    path,
                    has_top: true,
                }),
            },
        )
    }

    /// Unpacks an archive while it comes. `None` where the daemon has nothing there.
    async fn unpack(
        &self,
        outputs: &Arc<ArchivedOutputs>,
        part: &OutputPart,
        source: &Source,
        to: &Path,
        links: Option<OpenLinks>,
    ) -> Result<Option<OpenLinks>> {
        let doing = format!("reading {} of a snapshot", source.path);
        let options = DownloadFromContainerOptionsBuilder::default()
            .path(&source.path)
            .build();
        let stream = self
            .docker
            .download_from_container(self.container.id(), Some(options));
        let (pieces, taken) = mpsc::channel::<io::Result<Bytes>>(WAITING);
        let (outputs, part, to) = (Arc::clone(outputs), part.clone(), to.to_owned());
        let has_top = source.has_top;
        let unpacking = tokio::task::spawn_blocking(move || {
            let mut archive = Pieces {
                taken,
                piece: Bytes::new(),
            };
            outputs.unpack(&part, &mut archive, has_top, &to, links.as_ref())
        });
        let sent = hand_on(stream, pieces).await;
        let unpacked = unpacking.await.context("unpacking files of a snapshot")?;
        match (sent.doing(doing), unpacked) {
            (Err(error), _) if error.is_not_found() => Ok(None),
            // Why nothing more came says more than that the archive is cut off.
            (Err(error), _) => Err(error.contract()),
            (Ok(()), unpacked) => Ok(Some(unpacked.map_err(contract)?)),
        }
    }
}

/// Hands pieces on until there are no more, or nobody takes them.
async fn hand_on(
    mut stream: impl Stream<Item = Result<Bytes, bollard::errors::Error>> + Unpin,
    pieces: mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), bollard::errors::Error> {
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => {
                if pieces.send(Ok(piece)).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => {
                let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
                let _ = pieces.send(Err(cut)).await;
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Pieces of an archive, for reading on a thread that may block.
struct Pieces {
    taken: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.taken.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// A directory for files that are on their way, removed on drop.
struct Scratch {
    path: PathBuf,
    /// Locked while it is in use.
    _lock: File,
}

impl Scratch {
    /// Makes one in `above`, and removes what others left there.
    fn new(above: &Path) -> Result<Self> {
        let doing = || format!("making a directory in {}", above.display());
        fs::create_dir_all(above).with_context(doing)?;
        let whole = File::open(above).with_context(doing)?;
        // Alone: nobody has made a directory that is not locked yet.
        flock(&whole, FlockOperation::LockExclusive).with_context(doing)?;
        for left in fs::read_dir(above).with_context(doing)?.flatten() {
            let lock = File::open(left.path());
            let is_free = lock
                .as_ref()
                .is_ok_and(|lock| flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok());
            if is_free && let Err(error) = fs::remove_dir_all(left.path()) {
                tracing::warn!(path = %left.path().display(), %error, "a left-over cannot be removed");
            }
        }
        let path = above.join(nonce());
        fs::create_dir(&path).with_context(doing)?;
        let lock = File::open(&path).with_context(doing)?;
        flock(&lock, FlockOperation::LockExclusive).with_context(doing)?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory of a part.
    fn make(&self, part: usize) -> Result<PathBuf> {
        let path = self.path.join(part.to_string());
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    fn paths(&self, parts: usize) -> Vec<PathBuf> {
        let path = |part: usize| self.path.join(part.to_string());
        (0..parts).map(path).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "files of a snapshot are left");
        }
    }
}

/// The contract's error where it has one, so that `downcast_ref` finds it.
fn contract(error: StoreError) -> anyhow::Error {
    match error.contract() {
        Some(contract) => contract.into(),
        None => error.into(),
    }
}
