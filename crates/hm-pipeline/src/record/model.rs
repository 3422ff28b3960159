//! What a record holds.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hm_vm_core::{KeyComponents, SnapshotId};
use serde::{Deserialize, Serialize};

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Its process lives.
    Running,
    /// It came to an end, whatever its verdict.
    Finished,
    /// Its process died before that.
    Interrupted,
}

/// What a run was, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its number, from 1.
    pub id: u64,
    /// The pipeline's name.
    pub pipeline: String,
    /// Which pipeline it was: the same for all runs of one file and name.
    pub identity: String,
    /// The pipeline's file, absolute.
    pub file: String,
    /// Where it is in its life.
    pub state: RunState,
    /// When it began, in milliseconds since 1970.
    pub started: u64,
    /// When it ended, in milliseconds since 1970.
    pub ended: Option<u64>,
    /// Name of its [`Verdict`](crate::Verdict).
    pub verdict: Option<String>,
    /// The step that decided the verdict, if one did.
    pub verdict_step: Option<String>,
    /// 0 when it succeeded, that of the failed step when it failed; absent otherwise.
    pub exit_code: Option<i32>,
    /// What the user asked for, as written.
    pub options: Vec<String>,
    /// How its steps ended.
    pub counts: Counts,
    /// What caching saved, in milliseconds, as far as it is known.
    pub saved_ms: u64,
    /// Size of its logs, in bytes.
    pub log_bytes: u64,
    /// Digests of all that it injected, sorted.
    pub digests: Vec<String>,
}

/// How the steps of a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All that belong to the run.
    pub steps: usize,
    /// Those whose result was known.
    pub cached: usize,
    /// Those that ran and ended well.
    pub succeeded: usize,
    /// Those that failed, were broken, or were out of time; allowed or not.
    pub failed: usize,
    /// Those that were cancelled.
    pub cancelled: usize,
    /// Those that were not run.
    pub skipped: usize,
}

/// A run with its steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// What it was, and how it ended.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// The steps that belong to it, in the order in which they were planned.
    pub steps: Vec<StepRecord>,
}

/// What is known of a step of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepRecord {
    /// Its name.
    pub name: String,
    /// Its name in the file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its place in the pipeline.
    pub place: usize,
    /// The key that it is cached under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the key derives from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<KeyComponents>,
    /// What its command has beside the files, where `components` does not say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surroundings: Option<Surroundings>,
    /// What it brought in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub injects: Vec<InjectRecord>,
    /// What the plan made of it, in words: `cached`, `its result was lost: …`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Name of its [`StepOutcome`](crate::StepOutcome); absent until the run has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// How it ended, in words, where the outcome's name does not say all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Exit code of its command, if it ran to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether its failure is none of the run.
    #[serde(skip_serializing_if = "is_default")]
    pub allowed: bool,
    /// Its last try, from 1; 0 when it was not tried.
    #[serde(skip_serializing_if = "is_default")]
    pub attempt: u32,
    /// When its first try began, in milliseconds since 1970, if that was noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// How long its last try took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// For a cached step, how long it took when it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved_ms: Option<u64>,
    /// For a cached step whose result came from a cache shared with other machines, the bytes that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetched_bytes: Option<u64>,
    /// Its snapshot. It may be gone since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The state of its failed command. It may be gone since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// Name of its log in the run's directory, if it wrote anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// What a step's command has beside its files. No secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// Absolute guest directory.
    pub working_dir: String,
    /// Its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Its user, if not root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What a step brought in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InjectRecord {
    /// Guest directory.
    pub target: String,
    /// Host directory.
    pub directory: String,
    /// Digest of it, if it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl RunRecord {
    /// The step of this name.
    pub fn step(&self, name: &str) -> Option<&StepRecord> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// The states of failed commands that this run kept.
    pub fn kept(&self) -> impl Iterator<Item = SnapshotId> {
        let steps = self.steps.iter();
        steps.filter_map(|step| step.kept.as_deref().map(SnapshotId::new))
    }
}

impl StepRecord {
    /// What its command had beside its files, as far as that is on record.
    pub fn surroundings(&self) -> Option<Surroundings> {
        let derived = self.components.as_ref().map(|components| Surroundings {
            working_dir: components.working_dir.clone(),
            env: components.env.clone(),
            user: components.user.clone(),
        });
        derived.or_else(|| self.surroundings.clone())
    }
}

impl RunSummary {
    /// Whether something is known of how it ended.
    pub fn is_over(&self) -> bool {
        self.state != RunState::Running
    }

    /// From its beginning to its end, as far as that is known.
    pub fn took(&self) -> Option<Duration> {
        let took = self.ended?.saturating_sub(self.started);
        Some(Duration::from_millis(took))
    }
}

/// A time as records hold it.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration as records hold it.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
