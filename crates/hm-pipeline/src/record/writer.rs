//! The record of a run that goes on.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::Result;
use hm_vm_core::SnapshotId;

use super::files::{self, doing};
use super::lock;
use super::model::{RunRecord, RunSummary, unix_ms};
use super::{ephemeral, file};
use crate::pipeline::StepId;
use crate::plan::Plan;
use crate::schedule::RunOutcome;

/// A run on record. Holds the run's lock: when it is dropped without [`finish`](Self::finish), the run counts as
/// interrupted, and what it noted is found by [`RunStore::interrupted`](super::RunStore::interrupted).
#[derive(Debug)]
pub struct RunWriter {
    directory: PathBuf,
    summary: RunSummary,
    _lock: File,
    ephemeral: Mutex<Ephemeral>,
    started: Mutex<HashMap<StepId, u64>>,
}

/// Snapshots that nobody is to find after the run.
#[derive(Debug, Default)]
struct Ephemeral {
    file: Option<File>,
    noted: HashSet<SnapshotId>,
}

impl RunWriter {
    pub(super) fn new(directory: PathBuf, lock: File, summary: RunSummary) -> Self {
        Self {
            directory,
            summary,
            _lock: lock,
            ephemeral: Mutex::default(),
            started: Mutex::default(),
        }
    }

    /// The run's number.
    pub fn id(&self) -> u64 {
        self.summary.id
    }

    /// The run's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a step's output goes. The file is not made by this.
    pub fn log_path(&self, step: StepId) -> PathBuf {
        self.directory.join(format!("{step}.log"))
    }

    /// Notes that a step begins now. A second call for a step changes nothing.
    pub fn note_started(&self, step: StepId) {
        let now = unix_ms(SystemTime::now());
        locked(&self.started).entry(step).or_insert(now);
    }

    /// Notes a snapshot that is to be removed when the run is over, so that somebody does it should this process die.
    ///
    /// # Errors
    ///
    /// A failure to write.
    pub fn note_ephemeral(&self, snapshot: &SnapshotId) -> Result<()> {
        let mut ephemeral = locked(&self.ephemeral);
        if ephemeral.noted.insert(snapshot.clone()) {
            self.append(&mut ephemeral, &ephemeral::noted(snapshot))?;
        }
        Ok(())
    }

    /// Notes that such a snapshot is gone. That this fails costs one more attempt to remove it.
    pub fn forget_ephemeral(&self, snapshot: &SnapshotId) {
        let mut ephemeral = locked(&self.ephemeral);
        if !ephemeral.noted.remove(snapshot) {
            return;
        }
        if let Err(error) = self.append(&mut ephemeral, &ephemeral::forgotten(snapshot)) {
            tracing::debug!(%snapshot, error = %format!("{error:#}"), "a removed snapshot is still on record");
        }
    }

    fn append(&self, ephemeral: &mut Ephemeral, line: &str) -> Result<()> {
        let path = self.directory.join(ephemeral::NAME);
        if ephemeral.file.is_none() {
            ephemeral.file = Some(files::open_appending(&path)?);
        }
        match &mut ephemeral.file {
            Some(file) => doing(file.write_all(line.as_bytes()), "writing", &path),
            None => Ok(()),
        }
    }

    /// Puts on record how the run ended. `plan` is the one that it began with. A second call replaces what the first one
    /// wrote. Snapshots that were noted and not forgotten stay noted.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`](hm_vm_core::Error::NoSpace), or another failure to write: the run counts as interrupted then.
    pub fn finish(&self, plan: &Plan, outcome: &RunOutcome) -> Result<RunRecord> {
        let ended = unix_ms(SystemTime::now());
        let mut record = RunRecord::finished(self.summary.clone(), plan, outcome, ended);
        record.summary.log_bytes = log_bytes(&self.directory)?;
        let started = locked(&self.started);
        for step in &mut record.steps {
            step.started = started.get(&StepId(step.place)).copied();
        }
        drop(started);
        file::write(&self.directory, &record)?;
        if locked(&self.ephemeral).noted.is_empty() {
            settle(&self.directory)?;
        }
        Ok(record)
    }
}

/// Removes what says that there is something to clean up.
pub(super) fn settle(directory: &Path) -> Result<()> {
    files::remove_file(&directory.join(ephemeral::NAME))?;
    files::remove_file(&directory.join(lock::NAME))
}

/// Size of the logs of a run.
pub(super) fn log_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in doing(fs::read_dir(directory), "reading", directory)? {
        let entry = doing(entry, "reading", directory)?;
        if entry.path().extension().is_some_and(|it| it == "log") {
            // One that has just gone has no size.
            bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    Ok(bytes)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
