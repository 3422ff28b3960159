//! How long runs are kept.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use hm_vm_core::SnapshotId;

use super::begin::NEW;
use super::files::{self, doing};
use super::lock::{self, Life};
use super::model::{RunState, RunSummary, unix_ms};
use super::store::{RunStore, id_of};
use super::{file, manifests};

/// Names of runs that are about to be gone begin so.
const GONE: &str = ".gone-";

/// Which runs are kept. The newest run of all, the newest finished one of every pipeline, and those that live or have
/// something to clean up, are kept in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many.
    pub max_runs: usize,
    /// How old they may be.
    pub max_age: Duration,
    /// How large their logs may be together, in bytes.
    pub max_bytes: u64,
}

impl Default for Retention {
    /// 100 runs, 30 days, 1 GiB.
    fn default() -> Self {
        Self {
            max_runs: 100,
            max_age: Duration::from_secs(30 * 24 * 60 * 60),
            max_bytes: 1 << 30,
        }
    }
}

/// A run that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunedRun {
    /// Its number.
    pub id: u64,
    /// The states of failed commands that it had kept: nobody needs them any more.
    pub kept: Vec<SnapshotId>,
}

/// What is known of a run when it is decided whether to keep it.
struct Candidate {
    id: u64,
    /// Unknown when its file is broken.
    summary: Option<RunSummary>,
    /// Kept whatever the rule says.
    safe: bool,
}

impl RunStore {
    /// Removes the runs that the rule does not keep, the oldest first, and the lists of injected files that no run
    /// mentions any more. Several may do so at once.
    ///
    /// # Errors
    ///
    /// A failure to read or remove; what was removed until then is.
    pub fn prune(&self, retention: &Retention) -> Result<Vec<PrunedRun>> {
        self.sweep()?;
        let candidates = self.candidates()?;
        let now = SystemTime::now();
        let (mut runs, mut bytes) = (0, 0_u64);
        let mut pruned = Vec::new();
        let mut mentioned = HashSet::new();
        for candidate in candidates {
            let summary = candidate.summary.as_ref();
            let size = summary.map_or(0, |summary| summary.log_bytes);
            let fits = runs < retention.max_runs
                && bytes.saturating_add(size) <= retention.max_bytes
                && self.age(&candidate, now) <= retention.max_age;
            if candidate.safe || fits {
                runs += 1;
                bytes = bytes.saturating_add(size);
                mentioned.extend(candidate.summary.into_iter().flat_map(|it| it.digests));
            } else {
                pruned.extend(self.remove(candidate.id)?);
            }
        }
        // The oldest first.
        pruned.reverse();
        manifests::retain(self.directory(), &mentioned)?;
        Ok(pruned)
    }

    /// All runs, the newest first.
    fn candidates(&self) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        let mut finished = HashSet::new();
        for id in self.ids()?.into_iter().rev() {
            let directory = self.run_directory(id);
            let unsettled = lock::look(&directory)? != Life::Settled;
            let (summary, foreign) = match file::read_summary(&directory, id) {
                Ok(summary) => (summary, false),
                Err(_) => (None, file::is_newer(&directory)),
            };
            let newest_finished = summary.as_ref().is_some_and(|summary| {
                summary.state == RunState::Finished && finished.insert(summary.identity.clone())
            });
            candidates.push(Candidate {
                id,
                summary,
                safe: unsettled || foreign || newest_finished || candidates.is_empty(),
            });
        }
        Ok(candidates)
    }

    fn age(&self, candidate: &Candidate, now: SystemTime) -> Duration {
        let now = unix_ms(now);
        let started = match &candidate.summary {
            Some(summary) => summary.started,
            None => modified(&self.run_directory(candidate.id)).map_or(now, unix_ms),
        };
        Duration::from_millis(now.saturating_sub(started))
    }

    /// Removes a run at once, whatever the rule says. `None` when there is none, or somebody else did. Not for a run that
    /// lives, or is [interrupted](Self::interrupted) with snapshots to remove: nobody would know of those.
    ///
    /// # Errors
    ///
    /// A failure to remove.
    pub fn remove(&self, id: u64) -> Result<Option<PrunedRun>> {
        let directory = self.run_directory(id);
        let record = file::read(&directory, id).ok().flatten();
        let kept = record.iter().flat_map(|record| record.kept()).collect();
        let gone = self
            .directory()
            .join(format!("{GONE}{id}-{}", files::unique()));
        match fs::rename(&directory, &gone) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            renamed => doing(renamed, "removing", &directory)?,
        }
        files::remove_directory(&gone)?;
        Ok(Some(PrunedRun { id, kept }))
    }

    /// Removes what processes left that died while they began or removed a run.
    fn sweep(&self) -> Result<()> {
        for name in files::names(self.directory())? {
            let path = self.directory().join(&name);
            let dead = if name.starts_with(NEW) {
                // Its lock comes a moment after it: what is young may still get one.
                lock::look(&path)? != Life::Alive && is_old(&path)
            } else {
                name.starts_with(GONE) && is_old(&path)
            };
            if dead && id_of(&name).is_none() {
                files::remove_directory(&path)?;
            }
        }
        Ok(())
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

pub(super) fn is_old(path: &Path) -> bool {
    const HOUR: Duration = Duration::from_secs(3600);
    let age = modified(path).and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > HOUR)
}
