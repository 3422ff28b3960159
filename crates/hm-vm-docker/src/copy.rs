//! Snapshots in and out, as archives of images: what `docker save` writes and `docker load` reads.

use std::io::{Read, Write};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::query_parameters::{ImportImageOptionsBuilder, TagImageOptionsBuilder};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use hm_vm_core::{Error, SnapshotId};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{Sender, channel};

use crate::backend::{DockerBackend, Machine};
use crate::error::{DockerError, Doing as _};
use crate::objects::nonce;
use crate::{image, snapshot};

/// Bytes that are read at once, and given on at once.
const PART: usize = 256 * 1024;
/// Parts that wait at most.
const PARTS: usize = 4;

impl DockerBackend {
    /// Makes a snapshot of the one image in an archive. A name that the archive has for it stays its name, beside. Blocks.
    ///
    /// # Errors
    ///
    /// A failure to read; [`Error::InvalidInput`] when there is not exactly one image; [`Error::NoSpace`]; or a failure of the daemon.
    pub fn load_archive(&self, archive: impl Read + Send + 'static) -> Result<SnapshotId> {
        let machine = Arc::clone(&self.machine);
        self.machine
            .engine
            .run_blocking(async move { load(&machine, archive).await })
    }

    /// Writes a snapshot as an archive, without a name. Memory is bounded. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotNotFound`], a failure to write, or a failure of the daemon. A part may be written then.
    pub fn save_archive(&self, snapshot: &SnapshotId, out: &mut dyn Write) -> Result<()> {
        let engine = &self.machine.engine;
        let (machine, id) = (Arc::clone(&self.machine), snapshot.clone());
        let source = engine.run_blocking(async move {
            if !machine.presence.exists(&id).await? {
                return Err(Error::SnapshotNotFound { snapshot: id }.into());
            }
            let docker = snapshot::patient(machine.engine.docker());
            Ok(Arc::new(Mutex::new(Box::pin(docker.export_image(&id)))))
        })?;
        let doing = format!("reading snapshot {snapshot}");
        loop {
            let (source, doing) = (Arc::clone(&source), doing.clone());
            let part = engine
                .run_blocking(async move { part(&mut *source.lock().await, &doing).await })?;
            if part.is_empty() {
                return out.flush().context("writing the archive");
            }
            out.write_all(&part).context("writing the archive")?;
        }
    }
}

/// The next part of an answer. Empty at its end.
async fn part<S>(source: &mut S, doing: &str) -> Result<Bytes>
where
    S: Stream<Item = Result<Bytes, bollard::errors::Error>> + Unpin,
{
    let mut part = BytesMut::new();
    while part.len() < PART {
        match source.next().await {
            Some(bytes) => part.extend_from_slice(&bytes.doing(doing)?),
            None => break,
        }
    }
    Ok(part.freeze())
}

async fn load(machine: &Arc<Machine>, archive: impl Read + Send + 'static) -> Result<SnapshotId> {
    let docker = snapshot::patient(machine.engine.docker());
    let (parts, sent) = channel(PARTS);
    let reader = tokio::task::spawn_blocking(move || read(archive, &parts));
    let said = send(&docker, sent).await;
    // The daemon's complaint about an archive that ends early says less than why it did.
    reader.await.context("reading the archive")??;
    let names = loaded(&said?);
    let [name] = names.as_slice() else {
        return Err(Error::InvalidInput {
            what: "the archive".into(),
            reason: format!("one image is needed, and the daemon finds {}", names.len()),
        }
        .into());
    };
    let doing = || format!("looking at {name}, which the archive has brought");
    let found = image::inspect(&machine.engine, name)
        .await
        .with_context(doing)?;
    let id = found.with_context(doing)?.id;
    let mark = machine.presence.mark();
    let repository = machine
        .session
        .identity()
        .repository_in(machine.engine.info().kind);
    let options = TagImageOptionsBuilder::new()
        .repo(&repository)
        .tag(&format!("s-{}", nonce()));
    docker
        .tag_image(&id, Some(options.build()))
        .await
        .doing(format!("making image {id} a snapshot"))?;
    machine.presence.added(&id, mark);
    Ok(SnapshotId::new(id))
}

/// Reads on a thread that may wait, until the end, a failure, or nobody listens.
fn read(mut archive: impl Read, parts: &Sender<std::io::Result<Bytes>>) -> Result<()> {
    loop {
        let mut part = vec![0; PART];
        let read = archive.read(&mut part);
        let count = match read {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let same = std::io::Error::new(error.kind(), error.to_string());
                let _ = parts.blocking_send(Err(same));
                return Err(error).context("reading the archive");
            }
        };
        part.truncate(count);
        if count == 0 || parts.blocking_send(Ok(part.into())).is_err() {
            return Ok(());
        }
    }
}

/// Sends an archive. Returns what the daemon says to it.
async fn send(
    docker: &Docker,
    parts: tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>,
) -> Result<String> {
    let parts = stream::unfold(parts, |mut parts| async move {
        let part = parts.recv().await?;
        Some((part, parts))
    });
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let mut answers = docker.import_image_stream(options, parts, None);
    let mut said = String::new();
    while let Some(answer) = answers.next().await {
        let answer = answer
            .doing("loading an archive")
            .map_err(DockerError::contract)?;
        // What is needed is short; more is progress.
        if said.len() < PART {
            said.extend(answer.stream);
        }
    }
    Ok(said)
}

/// The images that the daemon says it has loaded, by name or id.
fn loaded(said: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in said.lines() {
        let line = line.trim();
        let starts = ["Loaded image ID:", "Loaded image(s):", "Loaded image:"];
        let Some(rest) = starts.iter().find_map(|start| line.strip_prefix(start)) else {
            continue;
        };
        let listed = rest.split(',').map(str::trim);
        names.extend(listed.filter(|name| !name.is_empty()).map(str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_daemons_say_they_have_loaded() {
        let id = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(loaded(&format!("Loaded image ID: {id}\n")), [id.as_str()]);
        assert_eq!(loaded("Loaded image: a/b:1\n"), ["a/b:1"]);
        assert_eq!(
            loaded(&format!("Loaded image(s): {id},b:2")),
            [id, "b:2".into()]
        );
        assert_eq!(
            loaded("Loading layer\nLoaded image: a:1\nLoaded image: b:2"),
            ["a:1", "b:2"]
        );
        assert!(loaded("The image a:1 already exists, renaming the old one").is_empty());
    }
}
