//! What a killed program leaves in a daemon.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use hm_vm_testkit::engines::IMAGE;
use hm_vm_testkit::require;
use serde_json::{Value, json};

use super::support::Docked;

#[test]
fn what_a_killed_program_left_is_removed_by_gc() {
    let docked = require!(Docked::new());
    let run = [
        "exec",
        "--backend",
        "docker",
        "--image",
        IMAGE,
        "--",
        "echo running; sleep 1000",
    ];
    let mut child = docked
        .command(&run)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("hmvm starts");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    output.read_line(&mut line).expect("a line");
    assert_eq!(line, "running\n");
    child.kill().expect("a kill");
    child.wait().expect("an end");
    assert_eq!(docked.objects().len(), 1);

    docked.docked(&["cache", "gc"]).success();
    assert_eq!(docked.objects(), Vec::<String>::new());
    let report = docked.hmvm(&["doctor", "--json"]);
    let report: Value = serde_json::from_str(&report.stdout).expect("JSON");
    assert_eq!(report["daemon_leftovers"], json!([]), "{report}");
}
