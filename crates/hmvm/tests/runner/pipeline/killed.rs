//! `kill -9` of a run at any moment leaves nothing that the next run does not clean up.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hm_vm_testkit::require;
use serde_json::Value;

use super::support::Project;
use crate::crash::Moments;

/// How often a run is killed; fewer times when the machine is slow.
const KILLS: u32 = 150;
const ENOUGH: Duration = Duration::from_secs(60);

/// Of so many kills, those that may hit the moment between a snapshot and its entry.
const MOST_UNHELD: usize = 8;

/// Steps that are cached and such as are not, with all that a step can leave behind.
const PIPELINE: &str = r#"
[pipeline]
name = "killed"
image = "host"
parallelism = 3

[steps.base]
run = "echo base > /base; echo made base"

[steps.build]
from = "base"
inject = "."
workdir = "/src"
run = "cat /base input > made; head -c 300000 /dev/zero > /big"
outputs = ["made"]

[steps.often]
from = "build"
cache = "off"
run = "sleep 1000 & setsid sleep 1000 & rm /big; echo often > /often"

[steps.forked]
from = "often"
run = "cat /often /base"

[steps.beside]
from = "often"
run = "cat /often"

[steps.leaf]
from = "forked"
run = "cat /often; mkdir -p /a/b"

[steps.shared]
cache = "off"
caches = { c = "/c" }
run = "echo line >> /c/lines; tail -n 1 /c/lines"

[steps.served]
cache = "off"
needs = ["shared"]
run = "echo asked"
"#;

const SERVICE: &str = r#"
[steps.served.services.web]
from = "base"
run = "exec python3 -m http.server 8123"
ready = { port = 8123, timeout = "60s" }
"#;

#[test]
fn a_kill_at_any_moment_leaves_nothing_behind() {
    let python = Command::new("/usr/bin/python3").arg("--version").output();
    let service = if python.is_ok() { SERVICE } else { "" };
    let project = require!(Project::new(&format!("{PIPELINE}{service}")));
    project.write("input", "input\n");
    for name in 0..30 {
        project.write(&format!("files/{name}"), vec![b'x'; 5000]);
    }
    let started = Instant::now();
    project.run(&[]).exits_with(0);
    // Kills are spread over what one run takes, and beyond.
    let usual = u64::try_from(started.elapsed().as_micros()).expect("microseconds");
    let mut moments = Moments::new();
    let mut kills = 0;
    while kills < KILLS && started.elapsed() < ENOUGH {
        // Now what is known, now what is not.
        let variable = format!("ROUND={}", moments.below(60));
        let mut child = project
            .command(&["run", "-q", "-e", &variable])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("hmvm starts");
        // A random moment, which is what is tested; nothing is waited for.
        thread::sleep(Duration::from_micros(moments.below(usual * 5 / 4)));
        child.kill().expect("a kill");
        child.wait().expect("an end");
        kills += 1;
        if kills % 25 == 0 {
            check(&project);
        }
    }
    let interrupted = check(&project);
    assert!(kills >= 25, "only {kills} kills in {ENOUGH:?}");
    assert!(
        interrupted > MOST_UNHELD,
        "{interrupted} runs were killed while they were on record"
    );
}

/// The next run works, and nothing is left over. Returns how many runs are known to have been killed.
fn check(project: &Project) -> usize {
    let run = project.run(&[]).exits_with(0);
    assert_eq!(run.output("leaf"), ["often"]);
    assert_eq!(project.read("made"), "base\ninput\n");
    assert_eq!(project.env.leftovers(), Value::Array(vec![]));
    // A process that is being killed may take a moment to go.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let traces = project.env.traces();
        if traces.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "left over: {traces:#?}");
        thread::sleep(Duration::from_millis(20));
    }
    // Each key stands for a snapshot that is there, and each snapshot is one that a key stands for: but for one that a
    // kill hit between its making and its entry, which `cache gc` removes a day later. Runs that were not cleaned up
    // after would leave one for each of them at least.
    let ids = |arguments: &[&str], field: &str| -> BTreeSet<String> {
        let list = project.env.json(arguments);
        let list = list.as_array().expect("a list");
        let text = |value: &Value| value[field].as_str().expect("an id").to_owned();
        list.iter().map(text).collect()
    };
    let snapshots = ids(&["snapshot", "ls", "--json"], "id");
    let cached = ids(&["cache", "ls", "--json"], "snapshot");
    assert!(cached.is_subset(&snapshots), "{cached:?} {snapshots:?}");
    let unheld = snapshots.difference(&cached).count();
    assert!(unheld <= MOST_UNHELD, "{unheld} snapshots have no key");
    let runs = project.env.json(["runs", "--limit", "10000", "--json"]);
    let states: Vec<&str> = runs
        .as_array()
        .expect("a list")
        .iter()
        .map(|run| match run["verdict"].as_str() {
            Some(verdict) => verdict,
            None => run["state"].as_str().expect("a state"),
        })
        .collect();
    let of = |state: &str| states.iter().filter(|of| **of == state).count();
    assert_eq!(
        of("interrupted") + of("succeeded"),
        states.len(),
        "{states:?}"
    );
    of("interrupted")
}
