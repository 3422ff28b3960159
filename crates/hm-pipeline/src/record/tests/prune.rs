//! Which runs are kept.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use hm_vm_core::SnapshotId;
use serde_json::json;

use super::case::{Case, failed};
use crate::pipeline::StepId;
use crate::record::Retention;

/// Keeps everything.
fn all() -> Retention {
    Retention {
        max_runs: usize::MAX,
        max_age: Duration::MAX,
        max_bytes: u64::MAX,
    }
}

#[test]
fn the_default_is_documented() {
    let month = Duration::from_secs(30 * 24 * 3600);
    let expected = Retention {
        max_runs: 100,
        max_age: month,
        max_bytes: 1024 * 1024 * 1024,
    };
    assert_eq!(Retention::default(), expected);
}

#[test]
fn the_newest_runs_are_kept() {
    let case = Case::new();
    for _ in 0..5 {
        case.finished("ci");
    }
    assert!(case.runs.prune(&all()).unwrap().is_empty());
    let two = Retention {
        max_runs: 2,
        ..all()
    };
    let pruned = case.runs.prune(&two).unwrap();
    assert_eq!(
        pruned.iter().map(|run| run.id).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(case.ids(), [5, 4]);
    assert!(case.runs.prune(&two).unwrap().is_empty());
    assert_eq!(case.begin("ci").0.id(), 6);
}

#[test]
fn old_runs_go() {
    let case = Case::new();
    for _ in 0..3 {
        case.finished("ci");
    }
    case.edit(1, |head| head["started"] = json!(1_000));
    let day = Retention {
        max_age: Duration::from_secs(24 * 3600),
        ..all()
    };
    assert_eq!(case.runs.prune(&day).unwrap().len(), 1);
    assert_eq!(case.ids(), [3, 2]);
}

#[test]
fn large_logs_go() {
    let case = Case::new();
    for _ in 0..3 {
        let (writer, plan) = case.begin("ci");
        fs::write(writer.log_path(StepId(0)), [0; 100]).unwrap();
        writer
            .finish(&plan, &super::case::succeeded(&plan))
            .unwrap();
    }
    let little = Retention {
        max_bytes: 250,
        ..all()
    };
    assert_eq!(case.runs.prune(&little).unwrap().len(), 1);
    assert_eq!(case.ids(), [3, 2]);
}

#[test]
fn the_newest_finished_run_of_each_pipeline_stays() {
    let case = Case::new();
    case.finished("one");
    case.finished("one");
    case.finished("two");
    drop(case.begin("two"));
    case.runs.mark_interrupted(4).unwrap();
    case.finished("two");
    drop(case.begin("one"));
    case.runs.mark_interrupted(6).unwrap();
    let none = Retention {
        max_runs: 0,
        ..all()
    };
    let pruned = case.runs.prune(&none).unwrap();
    assert_eq!(
        pruned.iter().map(|run| run.id).collect::<Vec<_>>(),
        [1, 3, 4]
    );
    assert_eq!(case.ids(), [6, 5, 2]);
}

#[test]
fn runs_that_live_or_are_to_be_cleaned_up_after_stay() {
    let case = Case::new();
    let (alive, _) = case.begin("ci");
    let (dead, _) = case.begin("ci");
    dead.note_ephemeral(&SnapshotId::new("left")).unwrap();
    drop(dead);
    case.finished("ci");
    let none = Retention {
        max_runs: 0,
        ..all()
    };
    assert!(case.runs.prune(&none).unwrap().is_empty());
    drop(alive);
    case.runs.mark_interrupted(1).unwrap();
    case.runs.mark_interrupted(2).unwrap();
    assert_eq!(case.runs.prune(&none).unwrap().len(), 2);
}

#[test]
fn what_a_run_kept_is_told() {
    let case = Case::new();
    let (writer, plan) = case.begin("ci");
    writer.finish(&plan, &failed(&plan, &writer)).unwrap();
    case.finished("ci");
    let none = Retention {
        max_runs: 0,
        ..all()
    };
    let pruned = case.runs.prune(&none).unwrap();
    assert_eq!(pruned.len(), 1);
    assert_eq!(pruned[0].kept, [SnapshotId::new("kept of 1")]);
}

#[test]
fn lists_that_no_run_mentions_go() {
    let case = Case::new();
    case.finished("one");
    case.finished("two");
    for digest in ["of one", "of two", "of nothing"] {
        case.runs.save_manifest(digest, &[]).unwrap();
    }
    case.runs.prune(&all()).unwrap();
    assert!(case.runs.has_manifest("of one") && case.runs.has_manifest("of two"));
    assert!(!case.runs.has_manifest("of nothing"));
}

#[test]
fn broken_runs_go_when_they_are_old_and_so_does_what_never_became_one() {
    let case = Case::new();
    for _ in 0..2 {
        case.finished("ci");
    }
    let new = case.runs.directory().join(".new-1-1");
    let gone = case.runs.directory().join(".gone-1-1");
    for directory in [&new, &gone] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(case.file(1), "broken").unwrap();
    let day = Retention {
        max_age: Duration::from_secs(24 * 3600),
        ..all()
    };
    assert!(case.runs.prune(&day).unwrap().is_empty());
    assert!(new.exists() && gone.exists());
    let old = SystemTime::now() - Duration::from_secs(7 * 24 * 3600);
    for directory in [&new, &gone, &case.runs.run_directory(1)] {
        File::open(directory).unwrap().set_modified(old).unwrap();
    }
    assert_eq!(case.runs.prune(&day).unwrap().len(), 1);
    assert!(!new.exists() && !gone.exists());
}
