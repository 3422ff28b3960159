//! Bringing a result here.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use hm_vm_core::{CancelCause, Cancellation, Progress, SnapshotId};
use hm_vm_oci::{Descriptor, Verified};
use hm_vm_store::Store;

use super::cache::{Shared, read_failure};
use super::health::{CancelOnDrop, Failure};
use super::port::{Fetched, FetchedLog};
use super::record::Found;
use crate::output::check_log;

/// What came. Dropped before it is taken, it is removed.
struct Arrived {
    store: Store,
    /// The snapshot, unless it was here before.
    new: Option<SnapshotId>,
    log: Option<LogFile>,
    bytes: u64,
}

/// A file that goes when this is dropped, unless it is kept.
struct LogFile {
    path: PathBuf,
    kept: bool,
}

impl Drop for LogFile {
    fn drop(&mut self) {
        if !self.kept {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        if let Some(snapshot) = self.new.take()
            && let Err(error) = self.store.remove_snapshot(&snapshot)
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%snapshot, error, "a fetched snapshot is left");
        }
    }
}

/// Brings what was found for a key. `None`, with a notice, when that cannot be.
pub(super) async fn fetch(
    shared: &Arc<Shared>,
    key: &str,
    found: Arc<Found>,
    cancel: &Cancellation,
    progress: &Progress,
) -> Result<Option<Fetched>> {
    let bytes = found.bytes();
    if bytes > shared.options.max_bytes {
        let what = format!("the shared result of key {key}");
        let reason = format!("it has more than {} bytes", shared.options.max_bytes);
        let failure = Failure::lie(what, reason);
        shared.reading.failed(&failure, Duration::ZERO);
        shared.spurn(key);
        return Ok(None);
    }
    let stop = Cancellation::new();
    let _stop = CancelOnDrop(stop.clone());
    let begun = Instant::now();
    let work = {
        let (shared, found, stop) = (Arc::clone(shared), Arc::clone(&found), stop.clone());
        let (key, progress) = (key.to_owned(), progress.clone());
        tokio::task::spawn_blocking(move || bring(&shared, &key, &found, &stop, &progress))
    };
    let limit = time_for(shared, bytes);
    let arrived = tokio::select! {
        biased;
        cause = cancel.cancelled() => return Err(hm_vm_core::Error::from(cause).into()),
        arrived = work => match arrived {
            Ok(arrived) => arrived,
            Err(_) => Err(Failure::Nothing("its thread has panicked")),
        },
        () = tokio::time::sleep(limit) => {
            stop.cancel(CancelCause::Timeout(limit));
            Err(Failure::Slow(limit))
        }
    };
    let mut arrived = match arrived {
        Ok(arrived) => arrived,
        Err(failure) => {
            shared.reading.failed(&failure, begun.elapsed());
            shared.spurn(key);
            return Ok(None);
        }
    };
    shared.reading.fine();
    shared.forget(key);
    let log = arrived.log.take().map(|mut log| {
        log.kept = true;
        FetchedLog {
            file: log.path.clone(),
            output_bytes: found.output_bytes,
        }
    });
    Ok(Some(Fetched {
        entry: found.entry.clone(),
        components: found.components.clone(),
        log,
        bytes: arrived.bytes,
        is_new: arrived.new.take().is_some(),
    }))
}

/// How long the fetching of so many bytes may take.
fn time_for(shared: &Shared, bytes: u64) -> Duration {
    let slowest = shared.options.slowest.max(1);
    shared.options.fetch_time + Duration::from_secs(bytes / slowest)
}

/// Brings snapshot and log. Blocks the thread.
fn bring(
    shared: &Shared,
    key: &str,
    found: &Found,
    stop: &Cancellation,
    progress: &Progress,
) -> Result<Arrived, Failure> {
    let (log, adopted) = std::thread::scope(|scope| {
        let log = found.log.as_ref().map(|blob| {
            let work = move || bring_log(shared, key, blob, found.output_bytes, stop);
            std::thread::Builder::new().spawn_scoped(scope, work)
        });
        let source = shared.repository.source();
        let adopted = shared
            .store
            .adopt_snapshot(&found.adoption, source, stop, progress);
        if adopted.is_err() {
            stop.cancel(CancelCause::Other("the snapshot could not be had".into()));
        }
        let log = log.map(|thread| match thread {
            Ok(thread) => match thread.join() {
                Ok(log) => log,
                Err(panic) => std::panic::resume_unwind(panic),
            },
            Err(source) => Err(Failure::Io {
                doing: "starting a thread",
                source,
            }),
        });
        (log, adopted)
    });
    let adopted = adopted?;
    let mut arrived = Arrived {
        store: shared.store.clone(),
        new: (!adopted.was_here).then(|| found.adoption.id.clone()),
        log: None,
        bytes: adopted.bytes + found.log.as_ref().map_or(0, |log| log.size),
    };
    arrived.log = log.transpose()?;
    stop.check()
        .map_err(|error| Failure::Store(hm_vm_store::StoreError::Cancelled(error)))?;
    Ok(arrived)
}

/// Brings a log into a file of its own, and checks that it is one of this key.
fn bring_log(
    shared: &Shared,
    key: &str,
    blob: &Descriptor,
    output_bytes: u64,
    stop: &Cancellation,
) -> Result<LogFile, Failure> {
    let here = |doing: &'static str| move |source: io::Error| Failure::Io { doing, source };
    let log = LogFile {
        path: shared.store.temporary_file(),
        kept: false,
    };
    let mut file = create(&log.path).map_err(here("creating a file for a fetched log"))?;
    let input = shared.repository.source().open(blob)?;
    let mut input = Verified::new(input, blob);
    let mut buffer = vec![0; 64 << 10];
    loop {
        stop.check()
            .map_err(|error| Failure::Store(hm_vm_store::StoreError::Cancelled(error)))?;
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_failure(error)),
        };
        io::Write::write_all(&mut file, &buffer[..count]).map_err(here("writing a fetched log"))?;
    }
    drop(file);
    let proceed = || stop.check().is_ok();
    check_log(&log.path, key, output_bytes, &proceed).map_err(|error| {
        Failure::lie(format!("the shared output of key {key}"), error.to_string())
    })?;
    Ok(log)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
