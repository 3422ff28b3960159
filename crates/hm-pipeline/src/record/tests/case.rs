//! A store of runs in a directory of its own, and runs to put into it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hm_vm_core::{InjectSource, SnapshotId};
use serde_json::Value;

use crate::event::{StepDetail, StepOutcome, StepResult, Verdict};
use crate::pipeline::StepId;
use crate::plan::{Plan, PlannedInject};
use crate::record::{RunHeader, RunRecord, RunStore, RunWriter};
use crate::schedule::RunOutcome;
use crate::testing;

/// A store, and the directory that it is in.
pub(super) struct Case {
    directory: tempfile::TempDir,
    pub(super) runs: RunStore,
}

impl Case {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runs = RunStore::open(&directory.path().join("runs")).unwrap();
        Self { directory, runs }
    }

    /// The directory of the store's.
    pub(super) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Begins a run of a pipeline.
    pub(super) fn begin(&self, pipeline: &str) -> (RunWriter, Plan) {
        let plan = plan(pipeline);
        let writer = self.runs.begin(&plan, header(&plan)).unwrap();
        (writer, plan)
    }

    /// A run of a pipeline that is over, and succeeded.
    pub(super) fn finished(&self, pipeline: &str) -> RunRecord {
        let (writer, plan) = self.begin(pipeline);
        writer.finish(&plan, &succeeded(&plan)).unwrap()
    }

    /// Numbers of all runs that can be read, the newest first.
    pub(super) fn ids(&self) -> Vec<u64> {
        let runs = self.runs.list().unwrap();
        runs.into_iter().map(|run| run.id).collect()
    }

    /// The file of a run.
    pub(super) fn file(&self, id: u64) -> PathBuf {
        self.runs.run_directory(id).join("run.json")
    }

    /// Changes the first line of a run's file.
    pub(super) fn edit(&self, id: u64, change: impl Fn(&mut Value)) {
        let content = std::fs::read_to_string(self.file(id)).unwrap();
        let (head, steps) = content.split_once('\n').unwrap();
        let mut head: Value = serde_json::from_str(head).unwrap();
        change(&mut head);
        std::fs::write(self.file(id), format!("{head}\n{steps}")).unwrap();
    }
}

/// A plan of the steps `a` and `b`; `a` injects something of the digest `of NAME`.
pub(super) fn plan(name: &str) -> Plan {
    let mut pipeline = testing::pipeline(vec![testing::step("a"), testing::step("b").forking(0)]);
    pipeline.name = name.into();
    let mut plan = testing::plan(pipeline);
    plan.steps[0].key = Some("key of a".into());
    plan.steps[0].injects.push(PlannedInject {
        source: InjectSource::directory("/project"),
        target: "/src".into(),
        digest: Some(format!("of {name}")),
    });
    plan
}

/// The header of a run of a plan.
pub(super) fn header(plan: &Plan) -> RunHeader {
    RunHeader::of(plan, Path::new("hmvm.toml"), vec!["--no-cache".into()])
}

/// How a run of a plan ends in which every step ran well.
pub(super) fn succeeded(plan: &Plan) -> RunOutcome {
    RunOutcome {
        verdict: Verdict::Succeeded,
        results: vec![Some(result(StepOutcome::Succeeded)); plan.steps.len()],
        took: Duration::from_secs(2),
    }
}

/// How a run of a plan ends of which the first step fails.
pub(super) fn failed(plan: &Plan, writer: &RunWriter) -> RunOutcome {
    let mut outcome = succeeded(plan);
    let exit_code = 3;
    outcome.verdict = Verdict::Failed {
        step: StepId(0),
        exit_code,
    };
    let mut first = result(StepOutcome::Failed { exit_code });
    first.detail.kept = Some(SnapshotId::new(format!("kept of {}", writer.id())));
    first.detail.log = Some(writer.log_path(StepId(0)));
    let skip = crate::SkipReason::Dependency(StepId(0));
    let mut second = result(StepOutcome::Skipped(skip));
    second.attempt = 0;
    outcome.results = vec![Some(first), Some(second)];
    outcome
}

/// The result of a step.
pub(super) fn result(outcome: StepOutcome) -> StepResult {
    StepResult {
        outcome,
        allowed: false,
        took: Duration::from_millis(1500),
        attempt: 1,
        detail: StepDetail::default(),
    }
}
