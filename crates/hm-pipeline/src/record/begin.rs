//! Beginning a run.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;

use super::file;
use super::files::{self, doing};
use super::lock;
use super::model::{Counts, RunRecord, RunState, RunSummary, unix_ms};
use super::store::RunStore;
use super::writer::RunWriter;
use crate::plan::Plan;

/// Names of directories that are no runs yet begin so.
pub(super) const NEW: &str = ".new-";

/// What is known of a run before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// The pipeline's name.
    pub pipeline: String,
    /// Which pipeline it is: the same for all runs of one file and name.
    pub identity: String,
    /// The pipeline's file, absolute.
    pub file: String,
    /// What the user asked for, as written.
    pub options: Vec<String>,
}

impl RunHeader {
    /// That of a run of `plan`, read from `file`; a relative one is looked for in the pipeline's directory.
    pub fn of(plan: &Plan, file: &Path, options: Vec<String>) -> Self {
        let file = plan.pipeline.directory.join(file);
        let file = fs::canonicalize(&file).unwrap_or(file);
        let file = file.to_string_lossy().into_owned();
        Self {
            pipeline: plan.pipeline.name.clone(),
            identity: format!("{file}#{}", plan.pipeline.name),
            file,
            options,
        }
    }

    fn summary(self, id: u64, plan: &Plan) -> RunSummary {
        let injects = plan.steps.iter().flat_map(|step| &step.injects);
        let mut digests: Vec<String> = injects.filter_map(|inject| inject.digest.clone()).collect();
        digests.sort_unstable();
        digests.dedup();
        RunSummary {
            id,
            pipeline: self.pipeline,
            identity: self.identity,
            file: self.file,
            state: RunState::Running,
            started: unix_ms(SystemTime::now()),
            ended: None,
            verdict: None,
            verdict_step: None,
            exit_code: None,
            options: self.options,
            counts: Counts {
                steps: plan.order.len(),
                ..Counts::default()
            },
            saved_ms: 0,
            log_bytes: 0,
            digests,
        }
    }
}

impl RunStore {
    /// Begins a run: gives it a number that no other has, and puts it on record. It is on record as long as the writer
    /// lives, and counts as interrupted when that is dropped before [`RunWriter::finish`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`](hm_vm_core::Error::NoSpace), or another failure to write.
    pub fn begin(&self, plan: &Plan, header: RunHeader) -> Result<RunWriter> {
        files::make_directories(self.directory())?;
        let made = files::make_unique_directory(self.directory(), NEW)?;
        let lock = lock::take(&made)?;
        let mut id = self.ids()?.last().map_or(1, |last| last + 1);
        let mut record = RunRecord {
            summary: header.summary(id, plan),
            steps: super::build::planned_steps(plan),
        };
        file::write(&made, &record)?;
        loop {
            let directory = self.run_directory(id);
            match fs::rename(&made, &directory) {
                Ok(()) => return Ok(RunWriter::new(directory, lock, record.summary)),
                // Somebody else has just begun one. A run's directory is never empty, so none is replaced.
                Err(error) if is_taken(error.kind()) => id += 1,
                Err(error) => return doing(Err(error), "creating", &directory),
            }
            record.summary.id = id;
        }
    }
}

fn is_taken(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory
    )
}
