//! The runs of a store.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use hm_vm_core::{Error, SnapshotId};

use super::lock::{self, Life};
use super::model::{RunRecord, RunState, RunSummary, StepRecord, unix_ms};
use super::{ephemeral, file, files, writer};

/// The runs of a store. Clones are the same store. Any number of processes may use it at once. See the
/// [module](super) for what is on disk.
#[derive(Clone, Debug)]
pub struct RunStore {
    directory: PathBuf,
}

impl RunStore {
    /// The runs in `directory`, which is made when the first one begins.
    ///
    /// # Errors
    ///
    /// Something other than a directory is there.
    pub fn open(directory: &Path) -> Result<Self> {
        match directory.metadata() {
            Ok(metadata) if !metadata.is_dir() => Err(Error::BadState {
                path: directory.display().to_string(),
                reason: "it is not a directory".into(),
            }
            .into()),
            _ => Ok(Self {
                directory: directory.to_owned(),
            }),
        }
    }

    /// Where all of it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of a run, whether or not it exists.
    pub fn run_directory(&self, id: u64) -> PathBuf {
        self.directory.join(id.to_string())
    }

    /// Where the output of a step is, if it wrote any.
    pub fn log_path(&self, id: u64, step: &StepRecord) -> Option<PathBuf> {
        // A name and nothing else, whatever the file says.
        let name = Path::new(step.log.as_ref()?).file_name()?.to_owned();
        Some(self.run_directory(id).join(name))
    }

    /// The numbers of all runs, in order.
    pub(super) fn ids(&self) -> Result<Vec<u64>> {
        let names = files::names(&self.directory)?;
        let mut ids: Vec<u64> = names.iter().filter_map(|name| id_of(name)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// All runs, the newest first. Reads one line of each. Those that cannot be read are left out, with a warning.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<RunSummary>> {
        let ids = self.ids()?;
        let newest_first = ids.into_iter().rev();
        Ok(newest_first.filter_map(|id| self.readable(id)).collect())
    }

    /// A run's summary, or nothing and a warning.
    fn readable(&self, id: u64) -> Option<RunSummary> {
        self.summary(id).unwrap_or_else(|error| {
            tracing::warn!(run = id, error = %format!("{error:#}"), "a run cannot be read");
            None
        })
    }

    /// What a run was, and how it ended. `None` when there is no such run.
    ///
    /// # Errors
    ///
    /// [`Error::BadState`] when its file is broken, or of a newer program.
    pub fn summary(&self, id: u64) -> Result<Option<RunSummary>> {
        let directory = self.run_directory(id);
        let summary = file::read_summary(&directory, id)?;
        summary
            .map(|summary| with_life(&directory, summary))
            .transpose()
    }

    /// A run with its steps. `None` when there is no such run.
    ///
    /// # Errors
    ///
    /// [`Error::BadState`] when its file is broken, or of a newer program.
    pub fn load(&self, id: u64) -> Result<Option<RunRecord>> {
        let directory = self.run_directory(id);
        let Some(mut record) = file::read(&directory, id)? else {
            return Ok(None);
        };
        record.summary = with_life(&directory, record.summary)?;
        Ok(Some(record))
    }

    /// The newest run of a pipeline that is over.
    ///
    /// # Errors
    ///
    /// The directory cannot be read. A run that cannot be is passed over with a warning.
    pub fn latest_of(&self, identity: &str) -> Result<Option<RunRecord>> {
        self.newest(identity, |record| {
            record.summary.is_over().then_some(record)
        })
    }

    /// What is known of a step from the newest run of a pipeline in which it had a derived key.
    ///
    /// # Errors
    ///
    /// As [`latest_of`](Self::latest_of).
    pub fn previous_step(&self, identity: &str, step: &str) -> Result<Option<StepRecord>> {
        self.newest(identity, |record| {
            let mut steps = record.steps.into_iter();
            steps.find(|it| it.name == step && it.components.is_some())
        })
    }

    /// What `choose` makes of the newest run of a pipeline of which it makes something.
    fn newest<T>(
        &self,
        identity: &str,
        choose: impl Fn(RunRecord) -> Option<T>,
    ) -> Result<Option<T>> {
        for id in self.ids()?.into_iter().rev() {
            let Some(summary) = self.readable(id) else {
                continue;
            };
            if summary.identity != identity {
                continue;
            }
            let record = self.load(id).unwrap_or_else(|error| {
                tracing::warn!(run = id, error = %format!("{error:#}"), "a run cannot be read");
                None
            });
            if let Some(chosen) = record.and_then(&choose) {
                return Ok(Some(chosen));
            }
        }
        Ok(None)
    }

    /// The runs whose process died, or that could not remove all their snapshots, with the snapshots that are to be removed. Whoever
    /// has removed those says so with [`mark_interrupted`](Self::mark_interrupted). Looks at no more than one
    /// file of a run with which everything is well.
    ///
    /// # Errors
    ///
    /// A failure to read.
    pub fn interrupted(&self) -> Result<Vec<(u64, Vec<SnapshotId>)>> {
        let mut interrupted = Vec::new();
        for id in self.ids()? {
            let directory = self.run_directory(id);
            if lock::look(&directory)? == Life::Dead {
                interrupted.push((id, ephemeral::read(&directory)?));
            }
        }
        Ok(interrupted)
    }

    /// Puts on record that a run's process died, and that its snapshots are removed. Does nothing for a run that lives,
    /// is gone, or of which that is known.
    ///
    /// # Errors
    ///
    /// A failure to read or write.
    pub fn mark_interrupted(&self, id: u64) -> Result<()> {
        let directory = self.run_directory(id);
        if lock::look(&directory)? != Life::Dead {
            return Ok(());
        }
        match file::read(&directory, id) {
            Ok(Some(mut record)) if record.summary.state == RunState::Running => {
                record.summary.state = RunState::Interrupted;
                record.summary.ended = last_change(&directory);
                record.summary.log_bytes = writer::log_bytes(&directory)?;
                file::write(&directory, &record)?;
            }
            Ok(_) => {}
            // Nothing can be put into such a file, but it has nothing left to clean up.
            Err(error) => {
                tracing::warn!(run = id, error = %format!("{error:#}"), "a run cannot be read");
            }
        }
        writer::settle(&directory).with_context(|| format!("settling run {id}"))
    }
}

/// The number that a directory's name is.
pub(super) fn id_of(name: &str) -> Option<u64> {
    // Neither `+1` nor `01`, which parse as well.
    let id: u64 = name.parse().ok()?;
    (id.to_string() == name).then_some(id)
}

/// A summary that says `interrupted` when nobody is there any more to end the run.
fn with_life(directory: &Path, mut summary: RunSummary) -> Result<RunSummary> {
    if summary.state == RunState::Running && lock::look(directory)? != Life::Alive {
        summary.state = RunState::Interrupted;
    }
    Ok(summary)
}

/// When something in a directory last changed: about when the run died.
fn last_change(directory: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(directory).ok()?;
    let times = entries.filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok());
    times.max().map(|time: SystemTime| unix_ms(time))
}
