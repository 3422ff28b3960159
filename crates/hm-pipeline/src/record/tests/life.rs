//! From the beginning of a run to its end, whichever that is.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Barrier;

use hm_vm_core::SnapshotId;

use super::case::{Case, failed, header, plan, result, succeeded};
use crate::event::StepOutcome;
use crate::pipeline::StepId;
use crate::record::{Retention, RunHeader, RunState, StepRecord};

fn ids(snapshots: &[&str]) -> Vec<SnapshotId> {
    snapshots.iter().map(|id| SnapshotId::new(*id)).collect()
}

#[test]
fn nothing_is_made_before_the_first_run() {
    let case = Case::new();
    assert!(case.runs.list().unwrap().is_empty());
    assert!(case.runs.interrupted().unwrap().is_empty());
    assert!(case.runs.latest_of("x").unwrap().is_none());
    assert!(case.runs.load(1).unwrap().is_none());
    assert!(!case.runs.has_manifest("x"));
    assert!(case.runs.prune(&Retention::default()).unwrap().is_empty());
    case.runs.mark_interrupted(1).unwrap();
    assert_eq!(std::fs::read_dir(case.root()).unwrap().count(), 0);
}

#[test]
fn a_run_is_on_record_from_its_beginning() {
    let case = Case::new();
    let (writer, plan) = case.begin("ci");
    assert_eq!(writer.id(), 1);
    let record = case.runs.load(1).unwrap().unwrap();
    let summary = &record.summary;
    assert_eq!(summary.state, RunState::Running);
    assert_eq!((summary.id, summary.pipeline.as_str()), (1, "ci"));
    assert_eq!(summary.file, "/project/hmvm.toml");
    assert_eq!(summary.identity, header(&plan).identity);
    assert_eq!(summary.options, ["--no-cache"]);
    assert_eq!(summary.digests, ["of ci"]);
    assert_eq!((summary.counts.steps, summary.ended), (2, None));
    let step = record.step("a").unwrap();
    assert_eq!(step.key.as_deref(), Some("key of a"));
    assert_eq!(step.reason, "it has no result yet");
    assert_eq!(step.injects[0].directory, "/project");
    assert_eq!(step.outcome, None);
    assert!(case.runs.interrupted().unwrap().is_empty());
    assert!(case.runs.latest_of(&summary.identity).unwrap().is_none());
}

#[test]
fn a_finished_run_says_how_it_ended() {
    let case = Case::new();
    let (writer, plan) = case.begin("ci");
    std::fs::write(writer.log_path(StepId(0)), "twelve bytes").unwrap();
    writer.note_started(StepId(0));
    let written = writer.finish(&plan, &failed(&plan, &writer)).unwrap();
    let record = case.runs.load(1).unwrap().unwrap();
    assert_eq!(record, written);
    let summary = &record.summary;
    assert_eq!(summary.state, RunState::Finished);
    assert_eq!(summary.verdict.as_deref(), Some("failed"));
    assert_eq!(summary.verdict_step.as_deref(), Some("a"));
    assert_eq!((summary.exit_code, summary.log_bytes), (Some(3), 12));
    assert_eq!((summary.counts.failed, summary.counts.skipped), (1, 1));
    assert!(summary.took().is_some());
    assert_eq!(record.kept().collect::<Vec<_>>(), ids(&["kept of 1"]));
    let [first, second] = &record.steps[..] else {
        panic!("{record:?}")
    };
    assert_eq!((first.exit_code, first.took_ms), (Some(3), Some(1500)));
    assert!(first.started.is_some() && second.started.is_none());
    assert_eq!(second.message.as_deref(), Some("a did not end well"));
    assert_eq!(second.took_ms, None);
    assert_eq!(
        case.runs.log_path(1, first),
        Some(writer.log_path(StepId(0)))
    );
    assert_eq!(case.runs.log_path(1, second), None);
    assert!(!case.runs.run_directory(1).join("lock").exists());
}

#[test]
fn a_log_is_nowhere_else_whatever_the_record_says() {
    let case = Case::new();
    let step = StepRecord {
        log: Some("../../etc/passwd".into()),
        ..StepRecord::default()
    };
    assert_eq!(
        case.runs.log_path(1, &step),
        Some(case.runs.run_directory(1).join("passwd"))
    );
}

#[test]
fn many_runs_begin_at_once_and_each_has_a_number() {
    const THREADS: usize = 8;
    const RUNS: usize = 10;
    let case = Case::new();
    let (plan, barrier) = (plan("ci"), Barrier::new(THREADS));
    let begin = || {
        barrier.wait();
        let runs = (0..RUNS).map(|_| case.runs.begin(&plan, header(&plan)).unwrap());
        runs.map(|run| run.id()).collect::<Vec<_>>()
    };
    let numbers: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(begin)).collect();
        let threads = threads.into_iter();
        threads.flat_map(|thread| thread.join().unwrap()).collect()
    });
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), THREADS * RUNS);
    assert_eq!(case.ids().len(), THREADS * RUNS);
    assert_eq!(distinct.last(), Some(&80));
}

#[test]
fn a_run_that_is_dropped_is_interrupted_with_its_snapshots() {
    let case = Case::new();
    let (writer, plan) = case.begin("ci");
    for snapshot in ids(&["one", "two\nlines", "three"]) {
        writer.note_ephemeral(&snapshot).unwrap();
        writer.note_ephemeral(&snapshot).unwrap();
    }
    writer.forget_ephemeral(&SnapshotId::new("one"));
    writer.forget_ephemeral(&SnapshotId::new("unknown"));
    assert!(case.runs.interrupted().unwrap().is_empty());
    // A run that lives cannot be put down as dead.
    case.runs.mark_interrupted(1).unwrap();
    assert_eq!(case.runs.list().unwrap()[0].state, RunState::Running);
    drop(writer);
    assert_eq!(case.runs.list().unwrap()[0].state, RunState::Interrupted);
    let expected = vec![(1, ids(&["two\nlines", "three"]))];
    assert_eq!(case.runs.interrupted().unwrap(), expected);
    case.runs.mark_interrupted(1).unwrap();
    case.runs.mark_interrupted(1).unwrap();
    assert!(case.runs.interrupted().unwrap().is_empty());
    let latest = case.runs.latest_of(&header(&plan).identity).unwrap();
    let summary = latest.unwrap().summary;
    assert_eq!(summary.state, RunState::Interrupted);
    assert!(summary.ended.is_some());
}

#[test]
fn half_a_line_of_a_dying_process_is_left_out() {
    let case = Case::new();
    let (writer, _) = case.begin("ci");
    writer.note_ephemeral(&SnapshotId::new("one")).unwrap();
    drop(writer);
    let path = case.runs.run_directory(1).join("ephemeral");
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{whole}+\"tw")).unwrap();
    assert_eq!(case.runs.interrupted().unwrap(), [(1, ids(&["one"]))]);
}

#[test]
fn a_finished_run_that_could_not_remove_a_snapshot_is_cleaned_up_after() {
    let case = Case::new();
    let (writer, plan) = case.begin("ci");
    writer.note_ephemeral(&SnapshotId::new("stuck")).unwrap();
    writer.finish(&plan, &succeeded(&plan)).unwrap();
    assert!(case.runs.interrupted().unwrap().is_empty());
    drop(writer);
    assert_eq!(case.runs.interrupted().unwrap(), [(1, ids(&["stuck"]))]);
    case.runs.mark_interrupted(1).unwrap();
    assert!(case.runs.interrupted().unwrap().is_empty());
    assert_eq!(case.runs.list().unwrap()[0].state, RunState::Finished);
}

#[test]
fn a_second_finish_replaces_the_first() {
    let case = Case::new();
    let (writer, plan) = case.begin("ci");
    writer.finish(&plan, &failed(&plan, &writer)).unwrap();
    let record = writer.finish(&plan, &succeeded(&plan)).unwrap();
    assert_eq!(
        (
            record.summary.counts.failed,
            record.summary.counts.succeeded
        ),
        (0, 2)
    );
    assert_eq!(case.runs.load(1).unwrap().unwrap(), record);
}

#[test]
fn the_latest_run_is_that_of_its_own_pipeline() {
    let case = Case::new();
    let first = case.finished("ci");
    case.finished("other");
    let (_alive, plan) = case.begin("ci");
    let identity = header(&plan).identity;
    assert_eq!(case.runs.latest_of(&identity).unwrap(), Some(first));
    assert_eq!(case.ids(), [3, 2, 1]);
    let elsewhere = RunHeader::of(&plan, Path::new("/elsewhere/hmvm.toml"), Vec::new());
    assert!(case.runs.latest_of(&elsewhere.identity).unwrap().is_none());
}

#[test]
fn what_the_runner_found_out_goes_before_what_was_planned() {
    let mut changed = result(StepOutcome::Succeeded);
    changed.detail.key = Some("another key".into());
    let record = StepRecord::of(&plan("ci"), StepId(0), &changed);
    assert_eq!(record.key.as_deref(), Some("another key"));
    assert_eq!(record.components, None);
    assert_eq!(record.surroundings().unwrap().working_dir, "");
}
