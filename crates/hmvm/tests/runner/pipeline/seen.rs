//! What a person, or a program, sees of runs.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use hm_vm_testkit::require;
use serde_json::Value;

use super::support::Project;
use crate::docs::documented_run_events;

const PIPELINE: &str = r#"
[pipeline]
name = "ci"
image = "host"
[steps.build]
run = "echo out; printf 'err\\377' >&2; echo built > /built"
[steps.test]
from = "build"
workdir = "/usr"
run = "seq 1 30; exit 3"
[steps.pack]
from = "test"
run = "true"
"#;

#[test]
fn plain_lines_tell_what_becomes_of_each_step() {
    let project = require!(Project::new(PIPELINE));
    let run = project.hmvm(&["run"]).exits_with(3);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 32, "{}", run.stdout);
    assert!(lines.contains(&"build | out") && lines.contains(&"build | err\u{fffd}"));
    assert_eq!(lines.last(), Some(&"test  | 30"));
    for text in [
        "run 1 of ci: 3 steps",
        "build: runs (not cached yet)",
        "test: failed with exit code 3",
        "  log:   $DIR/store/runs/1/1.log (hmvm logs 1 test)",
        "  shell: hmvm shell --failed 1/test",
        "pack: skipped: test did not end well",
        "3 steps: 1 ran, 1 failed, 1 skipped, in ",
        "run 1 of ci failed: test ended with exit code 3",
    ] {
        assert!(
            run.stderr.contains(text),
            "{text:?} is not in {}",
            run.stderr
        );
    }
    // What was shown is not shown again, and what was cached is.
    assert!(!run.stderr.contains("its last"), "{}", run.stderr);
    let run = project.hmvm(&["run"]).exits_with(3);
    assert!(run.stdout.contains("build | out\n"), "{}", run.stdout);
    assert!(
        run.stderr.contains("build: cached, saved"),
        "{}",
        run.stderr
    );
}

#[test]
fn quiet_tells_of_the_failure_alone() {
    let project = require!(Project::new(PIPELINE));
    let run = project.hmvm(&["run", "--quiet"]).exits_with(3);
    assert_eq!(run.stdout, "");
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert!(
        lines[0].starts_with("test: failed with exit code 3 after"),
        "{run:?}"
    );
    assert_eq!(lines[1], "  its last 20 lines:");
    assert_eq!((lines[2], lines[21]), ("    11", "    30"));
    assert_eq!(lines.len(), 24, "{run:?}");
}

#[test]
fn every_event_of_a_run_is_documented_with_its_fields() {
    let steps = "[steps.again]\nrun = \"test -e /c/x || { touch /c/x; exit 1; }\"\nretries = 2\ncaches = { once = \"/c\" }\n";
    let project = require!(Project::new(&format!("{PIPELINE}{steps}")));
    let documented = documented_run_events();
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let run = project.run(&["--keep-going"]).exits_with(3);
        let first = run.all.first().expect("events");
        assert_eq!(
            (&first["event"], &first["schema"]),
            (&"run_started".into(), &1.into())
        );
        assert_eq!(run.verdict(), "failed");
        for event in &run.all {
            let object = event.as_object().expect("an object");
            let mut fields: BTreeSet<String> = object.keys().cloned().collect();
            assert!(fields.remove("event"));
            let name = event["event"].as_str().expect("a name").to_owned();
            assert_eq!(Some(&fields), documented.get(&name), "{event}");
            seen.insert(name);
        }
    }
    for name in ["phase", "output", "step_retried", "step_ended", "run_ended"] {
        assert!(seen.contains(name), "{name} was not seen");
    }
}

#[test]
fn runs_are_listed_shown_and_removed() {
    let project = require!(Project::new(PIPELINE));
    assert_eq!(project.hmvm(&["runs", "--json"]).success().stdout, "[]\n");
    let run = project.hmvm(&["runs", "show"]).exits_with(125);
    assert!(run.stderr.contains("there are no runs yet"), "{run:?}");
    project.run(&[]).exits_with(3);
    project.run(&["build"]).exits_with(0);
    project.run(&[]).exits_with(3);
    let list: Value = project.env.json(["runs", "--json"]);
    let verdicts: Vec<_> = (0..3).map(|place| list[place]["verdict"].clone()).collect();
    assert_eq!(verdicts, ["failed", "succeeded", "failed"], "newest first");
    let limited: Value = project.env.json(["runs", "--json", "--limit", "1"]);
    assert_eq!(
        (limited.as_array().map(Vec::len), &limited[0]["run"]),
        (Some(1), &3.into())
    );
    let table = project.hmvm(&["runs"]).success().stdout;
    assert!(table.contains("failed: test"), "{table}");

    let show = project.hmvm(&["runs", "show", "3"]).success().stdout;
    assert!(
        show.contains("failed with exit code 3") && show.contains("cached"),
        "{show}"
    );
    let show: Value = project.env.json(["runs", "show", "--json"]);
    assert_eq!(
        (&show["run"], &show["steps"][1]["exit_code"]),
        (&3.into(), &3.into())
    );
    assert!(show["steps"][1]["kept"].is_string(), "{show:#}");

    let before = project.snapshots();
    let run = project.hmvm(&["runs", "rm", "1", "99"]).exits_with(125);
    assert!(run.stderr.contains("run 99 not found"), "{run:?}");
    project.hmvm(&["runs", "rm", "1", "3"]).success();
    let list: Value = project.env.json(["runs", "--json"]);
    assert_eq!(
        (list.as_array().map(Vec::len), &list[0]["run"]),
        (Some(1), &2.into())
    );
    assert_eq!(
        project.snapshots(),
        before - 1,
        "the state of the failure goes with its run"
    );
    project.run(&["build"]).exits_with(0);
    let run = project.hmvm(&["runs", "prune", "--keep", "1"]).success();
    assert!(run.stderr.contains("removed 1 run"), "{run:?}");
    project.assert_clean();
}

#[test]
fn logs_are_what_the_steps_wrote() {
    let project = require!(Project::new(PIPELINE));
    let run = project.hmvm(&["logs"]).exits_with(125);
    assert!(run.stderr.contains("there are no runs yet"), "{run:?}");
    project.run(&[]).exits_with(3);
    project.run(&["build"]).exits_with(0);

    let output = project
        .command(&["logs", "build"])
        .output()
        .expect("hmvm starts");
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"out\n"[..], &b"err\xff"[..])
    );
    let run = project
        .hmvm(&["logs", "1", "test", "--tail", "2"])
        .success();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("29\n30\n", ""));
    let output = project
        .command(&["logs", "1", "-n", "1", "--stdout"])
        .output();
    let output = output.expect("hmvm starts");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "build | out\ntest  | 30\n"
    );
    let run = project
        .hmvm(&["logs", "1/test", "--json", "--tail", "1"])
        .success();
    let line: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(
        (&line["step"], &line["line"]),
        (&"test".into(), &"30".into())
    );
    let run = project
        .hmvm(&["logs", "1", "test", "-t", "-n", "1"])
        .success();
    assert!(run.stdout.ends_with("Z 30\n"), "{run:?}");

    let run = project.hmvm(&["logs", "1", "tset"]).exits_with(125);
    assert!(
        run.stderr.contains("its steps are: build, test, pack"),
        "{run:?}"
    );
    let run = project.hmvm(&["logs", "build", "test"]).exits_with(125);
    assert!(run.stderr.contains("not the number of a run"), "{run:?}");
}

#[test]
fn logs_follow_a_run_to_its_end() {
    let steps = "[steps.slow]\nrun = \"echo begun; for i in $(seq 1000); do test -e /c/go && break; sleep 0.05; done; echo done\"\ncaches = { gate = { target = \"/c\", sharing = \"shared\" } }\n";
    let project = require!(Project::new(&format!(
        "[pipeline]\nimage = \"host\"\n{steps}"
    )));
    let mut run = project
        .command(&["run", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("hmvm starts");
    let mut events = BufReader::new(run.stdout.take().expect("a pipe")).lines();
    while !events
        .next()
        .expect("a line")
        .expect("UTF-8")
        .contains("begun")
    {}
    let mut logs = project
        .command(&["logs", "--follow", "slow"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("hmvm starts");
    let mut lines = BufReader::new(logs.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("a line").expect("UTF-8"), "begun");
    // Only now does the step go on: the rest is seen as it comes.
    let open = "[steps.open]\nrun = \"touch /c/go\"\ncache = \"off\"\ncaches = { gate = { target = \"/c\", sharing = \"shared\" } }\n";
    project.write("hmvm.toml", format!("[pipeline]\nimage = \"host\"\n{open}"));
    project.run(&[]).exits_with(0);
    assert_eq!(lines.next().expect("a line").expect("UTF-8"), "done");
    assert!(lines.next().is_none());
    assert!(logs.wait().expect("an end").success());
    for event in events {
        event.expect("UTF-8");
    }
    assert!(run.wait().expect("an end").success());
}
