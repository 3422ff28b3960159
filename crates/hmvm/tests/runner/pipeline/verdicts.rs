//! How runs end.

use std::process::Stdio;

use hm_vm_testkit::require;
use rustix::process::{Pid, Signal, kill_process};

use super::support::{Events, Project, outcomes};

fn pipeline(steps: &str) -> String {
    format!("[pipeline]\nimage = \"host\"\n{steps}")
}

#[test]
fn the_exit_code_is_that_of_the_step_that_failed() {
    let project = require!(Project::new(&pipeline(
        "[steps.a]\nrun = \"exit 7\"\n[steps.b]\nfrom = \"a\"\nrun = \"true\"\n[steps.c]\nneeds = \"a\"\nrun = \"true\"\n"
    )));
    let run = project.run(&[]).exits_with(7);
    assert_eq!(run.verdict(), "failed");
    let expected = [("a", "failed"), ("b", "skipped"), ("c", "skipped")];
    assert_eq!(run.outcomes(), outcomes(&expected));
    assert_eq!(run.step("a")["exit_code"], 7);
    project.assert_clean();
}

#[test]
fn a_step_that_exits_with_130_has_failed() {
    let project = require!(Project::new(&pipeline("[steps.a]\nrun = \"exit 130\"\n")));
    let run = project.run(&[]).exits_with(130);
    assert_eq!(run.verdict(), "failed");
    assert_eq!(run.outcomes(), outcomes(&[("a", "failed")]));
}

#[test]
fn a_step_out_of_time_makes_the_run_timed_out() {
    let project = require!(Project::new(&pipeline(
        "[steps.a]\nrun = \"sleep 1000 & sleep 1000\"\ntimeout = \"100ms\"\n"
    )));
    let run = project.run(&[]).exits_with(124);
    assert_eq!(run.verdict(), "timed_out");
    assert_eq!(run.outcomes(), outcomes(&[("a", "timed_out")]));
    project.assert_clean();
}

#[test]
fn a_run_out_of_time_is_timed_out() {
    let project = require!(Project::new(&pipeline("[steps.a]\nrun = \"sleep 1000\"\n")));
    let run = project.run(&["--timeout", "300ms"]).exits_with(124);
    assert_eq!(run.verdict(), "timed_out");
    assert_eq!(run.outcomes(), outcomes(&[("a", "cancelled")]));
    project.assert_clean();
}

#[test]
fn a_step_that_cannot_be_run_is_broken() {
    let project = require!(Project::new(&pipeline(
        "[steps.a]\nrun = \"true\"\nworkdir = \"/no/such/place\"\n"
    )));
    let run = project.run(&[]).exits_with(125);
    assert_eq!(run.verdict(), "failed");
    assert_eq!(run.outcomes(), outcomes(&[("a", "broken")]));
}

#[test]
fn keep_going_runs_what_does_not_depend_on_the_failure() {
    let project = require!(Project::new(&pipeline(
        "[steps.a]\nrun = \"exit 3\"\n[steps.b]\nfrom = \"a\"\nrun = \"true\"\n[steps.c]\nneeds = \"d\"\nrun = \"echo c\"\n[steps.d]\nrun = \"echo d\"\n"
    )));
    let run = project.run(&["--keep-going"]).exits_with(3);
    let expected = [
        ("a", "failed"),
        ("b", "skipped"),
        ("c", "succeeded"),
        ("d", "succeeded"),
    ];
    assert_eq!(run.outcomes(), outcomes(&expected));
}

#[test]
fn an_allowed_failure_is_none_of_the_run() {
    let project = require!(Project::new(&pipeline(
        "[steps.a]\nrun = \"exit 3\"\nallow_failure = true\n[steps.b]\nneeds = \"a\"\nrun = \"true\"\n[steps.c]\nfrom = \"a\"\nrun = \"true\"\n"
    )));
    let run = project.run(&[]).exits_with(0);
    assert_eq!(run.verdict(), "succeeded");
    let expected = [("a", "failed"), ("b", "succeeded"), ("c", "skipped")];
    assert_eq!(run.outcomes(), outcomes(&expected));
}

#[test]
fn a_step_is_tried_again_in_a_fresh_vm() {
    let project = require!(Project::new(&pipeline(
        "[steps.a]\nrun = \"test ! -e /tried; touch /tried; test $(cat /c/n 2>/dev/null | wc -l) -ge 2 || { echo x >> /c/n; exit 1; }\"\nretries = 5\ncaches = { count = \"/c\" }\n"
    )));
    let run = project.run(&[]).exits_with(0);
    assert_eq!(run.step("a")["attempt"], 3, "{:#?}", run.all);
}

#[test]
fn ctrl_c_cancels_the_run_and_leaves_nothing() {
    let project = require!(Project::new(&pipeline(
        "[steps.a]\nrun = \"echo begun; trap '' TERM; sleep 1000\"\n[steps.b]\nfrom = \"a\"\nrun = \"true\"\n"
    )));
    let mut command = project.command(&["run", "--json", "--grace", "100ms"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hmvm starts");
    // The step is known to run when its first line is there.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(
        child.stdout.take().expect("a pipe"),
    ));
    let mut seen: Vec<String> = Vec::new();
    while !seen.last().is_some_and(|line| line.contains("begun")) {
        seen.push(lines.next().expect("a line").expect("UTF-8"));
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("a signal");
    seen.extend(lines.map(|line| line.expect("UTF-8")));
    let output = child.wait_with_output().expect("an end");
    let events = Events {
        code: output.status.code().expect("a code"),
        all: seen
            .iter()
            .map(|line| serde_json::from_str(line).expect("an event"))
            .collect(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
    .exits_with(130);
    assert_eq!(events.verdict(), "cancelled");
    let expected = [("a", "cancelled"), ("b", "cancelled")];
    assert_eq!(events.outcomes(), outcomes(&expected));
    project.assert_clean();
}

#[test]
fn a_killed_run_is_cleaned_up_by_the_next_one() {
    let project = require!(Project::new(&pipeline(
        "[steps.a]\nrun = \"touch /made\"\ncache = \"off\"\n[steps.b]\nfrom = \"a\"\nrun = \"test -e /c/again || { touch /c/again; echo begun; sleep 1000; }\"\ncaches = { seen = \"/c\" }\n"
    )));
    let mut child = project
        .command(&["run", "--plain"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("hmvm starts");
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    while !line.contains("begun") {
        line.clear();
        assert_ne!(
            std::io::BufRead::read_line(&mut reader, &mut line).expect("a line"),
            0
        );
    }
    child.kill().expect("a kill");
    child.wait().expect("an end");
    let run = project.run(&[]).exits_with(0);
    assert_eq!(run.verdict(), "succeeded");
    assert_eq!(
        project.snapshots(),
        0,
        "the killed run's snapshot is gone as well"
    );
    project.assert_clean();
    let runs = project.env.json(["runs", "--json"]);
    assert_eq!(runs[1]["state"], "interrupted", "{runs:#}");
}

#[test]
fn a_step_that_fails_again_and_again_keeps_one_state() {
    let project = require!(Project::new(&pipeline(
        "[steps.a]\nrun = \"exit 1\"\nretries = 2\n"
    )));
    let run = project.run(&[]).exits_with(1);
    assert_eq!(run.step("a")["attempt"], 3);
    assert_eq!(project.snapshots(), 1);
    project.assert_clean();
}
