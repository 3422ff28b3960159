//! What `hmvm exec` tells of its work: events for programs, a closing line for people.

use std::collections::BTreeSet;

use hm_vm_testkit::require;

use crate::docs::documented_events;
use crate::env::TestEnv;

#[test]
fn events_tell_the_whole_story() {
    let env = require!(TestEnv::machine());
    let run = env
        .hmvm(["exec", "--json", "--", "echo a; printf b; echo c >&2"])
        .success();
    assert_eq!(run.stderr, "");
    let events = TestEnv::events(&run);
    let lines: Vec<(&str, &str)> = events
        .iter()
        .filter(|event| event["event"] == "output")
        .map(|event| {
            (
                event["stream"].as_str().expect("a stream"),
                event["line"].as_str().expect("a line"),
            )
        })
        .collect();
    let of = |name: &str| -> Vec<&str> {
        lines
            .iter()
            .filter(|(stream, _)| *stream == name)
            .map(|(_, line)| *line)
            .collect()
    };
    assert_eq!((of("stdout"), of("stderr")), (vec!["a", "b"], vec!["c"]));
    let phases: Vec<&str> = events
        .iter()
        .filter(|event| event["event"] == "started")
        .map(|event| event["phase"].as_str().expect("a phase"))
        .collect();
    for phase in ["lookup", "create", "exec", "snapshot", "publish"] {
        assert!(phases.contains(&phase), "{phases:?}");
    }
    let result = events.last().expect("a last event");
    assert_eq!(
        (&result["event"], &result["exit_code"]),
        (&"result".into(), &0.into())
    );
    assert!(
        result["key"]
            .as_str()
            .is_some_and(|key| key.starts_with("hm1-"))
    );
    assert!(result["phases"]["exec"].is_number() && result["usage"]["wall_ms"].is_number());
}

#[test]
fn every_event_is_documented_with_its_fields() {
    let env = require!(TestEnv::machine());
    env.write("project/file", "x");
    let documented = documented_events();
    let mut seen = BTreeSet::new();
    let kinds: [(&[&str], i32); 6] = [
        (&["--inject", "project", "--", "echo a; echo b >&2"], 0),
        (&["--inject", "project", "--", "echo a; echo b >&2"], 0),
        (&["--keep-failed", "--", "exit 3"], 3),
        (&["--timeout", "200ms", "--", "sleep 1000"], 124),
        (
            &["--pull", "never", "--image", "nowhere", "--", "true"],
            125,
        ),
        (&["--cache", "off", "--", "true"], 0),
    ];
    for (arguments, code) in kinds {
        let run = env.hmvm([&["exec", "--json"], arguments].concat());
        let events = TestEnv::events(&run.exits_with(code));
        for event in &events {
            let mut fields: BTreeSet<String> = event
                .as_object()
                .expect("an object")
                .keys()
                .cloned()
                .collect();
            assert!(fields.remove("event"));
            let name = event["event"].as_str().expect("a name").to_owned();
            assert_eq!(Some(&fields), documented.get(&name), "{event}");
            seen.insert(name);
        }
        let last = events.last().expect("an event");
        assert_eq!(last["exit_code"], code);
        let ends = events
            .iter()
            .filter(|event| matches!(event["event"].as_str(), Some("result" | "error")));
        assert_eq!(ends.count(), 1, "{arguments:?}");
        // Phases do not overlap, and each that began has ended.
        let phases: Vec<&serde_json::Value> = events
            .iter()
            .filter(|event| event["phase"].is_string())
            .collect();
        for pair in phases.chunks(2) {
            assert_eq!(
                (&pair[0]["event"], &pair[1]["event"]),
                (&"started".into(), &"ended".into())
            );
            assert_eq!(pair[0]["phase"], pair[1]["phase"]);
        }
    }
    for name in ["started", "ended", "output", "result", "error"] {
        assert!(seen.contains(name), "{seen:?}");
    }
}

#[test]
fn the_closing_line_tells_snapshot_skip_and_time_by_phase() {
    let env = require!(TestEnv::machine());
    env.write("project/file", "x");
    let arguments = ["exec", "--inject", "project", "--", "true"];
    let phases = |run: &crate::env::Run| -> Vec<String> {
        let (_, list) = run.stderr.split_once(" (").expect("phases");
        list.trim_end()
            .trim_end_matches(')')
            .split(", ")
            .map(|phase| phase.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    };
    let first = env.hmvm(arguments).success();
    let id = env.json(["snapshot", "ls", "--json"])[0]["id"].clone();
    let short = &id.as_str().expect("an id")[..12];
    assert!(
        first
            .stderr
            .starts_with(&format!("hmvm: snapshot {short}, ran in ")),
        "{}",
        first.stderr
    );
    let all = [
        "lookup", "create", "inject", "exec", "snapshot", "publish", "destroy",
    ];
    assert_eq!(phases(&first), all);
    let second = env.hmvm(arguments).success();
    assert!(
        second
            .stderr
            .starts_with(&format!("hmvm: snapshot {short}, cached, ")),
        "{}",
        second.stderr
    );
    assert_eq!(phases(&second), ["lookup"]);
    assert_eq!(env.hmvm(["exec", "-q", "--", "true"]).success().stderr, "");
}
