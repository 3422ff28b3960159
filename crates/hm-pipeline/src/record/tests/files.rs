//! What is on disk, and what is there instead.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hm_vm_core::{Error, SnapshotId};
use serde_json::json;

use super::case::{Case, header, plan};
use crate::record::{Retention, RunState, RunStore};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn bad_state(error: &anyhow::Error) -> &str {
    match error.downcast_ref() {
        Some(Error::BadState { reason, .. }) => reason,
        _ => panic!("{error:?}"),
    }
}

#[test]
fn all_of_it_is_for_the_user_alone() {
    let case = Case::new();
    let (writer, _) = case.begin("ci");
    writer.note_ephemeral(&SnapshotId::new("one")).unwrap();
    case.runs.save_manifest("digest", &[]).unwrap();
    let directory = writer.directory();
    for path in [
        case.runs.directory(),
        directory,
        &case.runs.directory().join("manifests"),
    ] {
        assert_eq!(mode(path), 0o700, "{}", path.display());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["ephemeral", "lock", "run.json"]);
}

#[test]
fn the_file_is_two_lines_of_json_with_a_version() {
    let case = Case::new();
    case.finished("ci");
    let content = fs::read_to_string(case.file(1)).unwrap();
    let lines: Vec<serde_json::Value> = content
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["version"], 1);
    assert_eq!(lines[0]["verdict"], "succeeded");
    assert_eq!(lines[1][0]["name"], "a");
}

#[test]
fn a_newer_run_is_refused_left_out_and_left_alone() {
    let case = Case::new();
    for _ in 0..3 {
        case.finished("ci");
    }
    case.edit(1, |head| {
        *head = json!({ "version": 2, "anything": "else" })
    });
    let before = fs::read(case.file(1)).unwrap();
    let error = case.runs.load(1).unwrap_err();
    assert!(bad_state(&error).contains("newer"), "{error:#}");
    assert_eq!(case.ids(), [3, 2]);
    let none = Retention {
        max_runs: 0,
        ..Retention::default()
    };
    let pruned = case.runs.prune(&none).unwrap();
    assert_eq!(pruned.iter().map(|run| run.id).collect::<Vec<_>>(), [2]);
    assert_eq!(fs::read(case.file(1)).unwrap(), before);
}

#[test]
fn a_broken_run_is_left_out() {
    let case = Case::new();
    for _ in 0..3 {
        case.finished("ci");
    }
    fs::write(case.file(2), "{\"version\":1").unwrap();
    fs::write(case.file(3), "").unwrap();
    assert_eq!(case.ids(), [1]);
    assert!(bad_state(&case.runs.load(2).unwrap_err()).contains("broken"));
    let latest = case.runs.latest_of(&header(&plan("ci")).identity).unwrap();
    assert_eq!(latest.unwrap().summary.id, 1);
    // Its number is not given again.
    assert_eq!(case.begin("ci").0.id(), 4);
}

#[test]
fn broken_steps_leave_the_summary() {
    let case = Case::new();
    case.finished("ci");
    case.finished("ci");
    let content = fs::read_to_string(case.file(2)).unwrap();
    let head = content.lines().next().unwrap();
    fs::write(case.file(2), format!("{head}\n[{{")).unwrap();
    assert_eq!(case.ids(), [2, 1]);
    bad_state(&case.runs.load(2).unwrap_err());
    let latest = case.runs.latest_of(&header(&plan("ci")).identity).unwrap();
    assert_eq!(latest.unwrap().summary.id, 1);
}

#[test]
fn a_dead_run_without_a_file_is_settled() {
    let case = Case::new();
    drop(case.begin("ci"));
    fs::remove_file(case.file(1)).unwrap();
    assert_eq!(case.runs.interrupted().unwrap(), [(1, vec![])]);
    case.runs.mark_interrupted(1).unwrap();
    assert!(case.runs.interrupted().unwrap().is_empty());
    assert!(case.ids().is_empty());
}

#[test]
fn what_is_no_run_is_passed_over() {
    let case = Case::new();
    case.finished("ci");
    for name in ["01", "+2", "x", "manifests", ".new-1-1"] {
        fs::create_dir(case.runs.directory().join(name)).unwrap();
    }
    fs::write(case.runs.directory().join("2"), "a file").unwrap();
    assert_eq!(case.ids(), [1]);
    let (writer, _) = case.begin("ci");
    assert_eq!(writer.id(), 3);
    assert_eq!(case.runs.list().unwrap()[0].state, RunState::Running);
}

#[test]
fn something_else_in_its_place_is_refused() {
    let case = Case::new();
    let path = case.root().join("file");
    fs::write(&path, "").unwrap();
    bad_state(&RunStore::open(&path).unwrap_err());
}

/// Processor time of this thread.
fn processor_time() -> std::time::Duration {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let first = statistics.split_whitespace().next().unwrap();
    std::time::Duration::from_nanos(first.parse().unwrap())
}

/// Shows what a record costs: `cargo test --release -p hm-pipeline record -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn how_long_a_thousand_steps_take() {
    let steps = |count: usize| {
        let mut steps = vec![crate::testing::step("s0")];
        for i in 1..count {
            let mut step = crate::testing::step(&format!("s{i}")).forking(i - 1);
            step.env = (0..5).map(|v| (format!("V{v}"), "value".into())).collect();
            steps.push(step);
        }
        crate::testing::pipeline(steps)
    };
    let world = crate::plan::tests::World::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let started = processor_time();
    let plan = runtime.block_on(world.plain(&steps(1000)));
    println!("plan {:?}", processor_time() - started);
    let started = processor_time();
    let components = plan
        .steps
        .iter()
        .filter_map(|step| step.components.as_ref());
    let distinct: std::collections::HashSet<_> = components.map(|it| it.key()).collect();
    println!(
        "its {} keys {:?}",
        distinct.len(),
        processor_time() - started
    );
    let case = Case::new();
    let started = processor_time();
    let writer = case.runs.begin(&plan, header(&plan)).unwrap();
    println!("begin {:?}", processor_time() - started);
    let started = processor_time();
    writer
        .finish(&plan, &super::case::succeeded(&plan))
        .unwrap();
    println!("finish {:?}", processor_time() - started);
    for _ in 0..99 {
        case.finished("ci");
    }
    let started = processor_time();
    assert_eq!(case.ids().len(), 100);
    println!("list {:?}", processor_time() - started);
    let started = processor_time();
    case.runs.prune(&Retention::default()).unwrap();
    println!("prune {:?}", processor_time() - started);
    let started = processor_time();
    case.runs.interrupted().unwrap();
    println!("interrupted {:?}", processor_time() - started);
    println!("{} bytes", fs::metadata(case.file(1)).unwrap().len());
}
