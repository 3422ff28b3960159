//! Several processes on one store, and stores of others.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::{Child, Stdio};
use std::{fs, thread};

use hm_vm_testkit::require;
use serde_json::{Value, json};

use crate::env::{Run, TestEnv};

/// Says that it runs, then goes on only when its output is read.
const HELD_UP: &str = "echo running; head -c 8388608 /dev/zero";

fn start(env: &TestEnv, arguments: &[&str]) -> Child {
    env.command(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hmvm starts")
}

/// Starts the command that others wait for, and waits until it runs.
fn start_held_up(env: &TestEnv) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = start(env, &["exec", "--cache", "shared", "--", HELD_UP]);
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "running\n");
    (child, stdout)
}

#[test]
fn who_comes_second_waits_says_so_and_gets_the_result() {
    let env = require!(TestEnv::machine());
    let (mut first, mut output) = start_held_up(&env);
    let mut second = start(&env, &["exec", "--cache", "shared", "--", HELD_UP]);
    let mut third = start(
        &env,
        &["exec", "--json", "--cache", "shared", "--", HELD_UP],
    );

    let mut talk = BufReader::new(second.stderr.take().expect("a pipe"));
    let mut line = String::new();
    talk.read_line(&mut line).expect("a line");
    assert_eq!(
        line,
        "hmvm: the same command is running elsewhere, waiting for its result\n"
    );
    let mut events = BufReader::new(third.stdout.take().expect("a pipe"));
    let mut told = Vec::new();
    while told.last() != Some(&json!({ "event": "started", "phase": "wait" })) {
        let mut line = String::new();
        assert!(events.read_line(&mut line).expect("a line") > 0, "{told:?}");
        told.push(serde_json::from_str::<Value>(&line).expect("an event"));
    }

    let mut of_first = Vec::new();
    output.read_to_end(&mut of_first).expect("its output");
    assert!(first.wait().expect("an end").success());
    let reader = thread::spawn(move || {
        let mut rest = String::new();
        events.read_to_string(&mut rest).expect("events");
        rest
    });
    let second = second.wait_with_output().expect("an end");
    let mut closing = String::new();
    talk.read_to_string(&mut closing).expect("talk");
    assert!(second.status.success());
    assert_eq!(second.stdout[8..], of_first, "the output is replayed whole");
    assert!(
        closing.contains(", cached, ") && closing.contains("wait "),
        "{closing}"
    );
    let rest = reader.join().expect("the reader ends");
    assert!(third.wait().expect("an end").success());
    let last: Value = serde_json::from_str(rest.lines().last().expect("a line")).expect("JSON");
    assert_eq!(
        (&last["event"], &last["cached"]),
        (&json!("result"), &json!(true))
    );
    assert!(last["phases"]["wait"].is_number(), "{last}");
    assert!(
        rest.lines()
            .any(|line| line.contains("\"ended\",\"phase\":\"wait\"")),
        "{rest:.300}"
    );
}

#[test]
fn who_waits_for_one_that_is_killed_takes_its_turn() {
    let env = require!(TestEnv::machine());
    let (mut first, output) = start_held_up(&env);
    let mut second = start(&env, &["exec", "--cache", "shared", "--", "echo mine"]);
    let mut talk = BufReader::new(second.stderr.take().expect("a pipe"));
    let mut line = String::new();
    talk.read_line(&mut line).expect("a line");
    assert!(line.contains("waiting for its result"), "{line}");
    first.kill().expect("a kill");
    first.wait().expect("an end");
    drop(output);
    let second = second.wait_with_output().expect("an end");
    assert_eq!(
        (second.status.code(), &*second.stdout),
        (Some(0), &b"mine\n"[..])
    );
    assert_eq!(env.leftovers(), json!([]));
}

#[test]
fn many_at_once_on_one_store_run_each_key_once() {
    let env = require!(TestEnv::machine());
    // What it prints is never the same twice.
    let command = "head -c 16 /dev/urandom | od -An -tx1; echo x > /file";
    let keys: Vec<String> = (0..8)
        .map(|number| format!("own-{number}"))
        .chain((0..8).map(|_| "equal".to_owned()))
        .collect();
    let runs: Vec<Run> = thread::scope(|scope| {
        let threads: Vec<_> = keys
            .iter()
            .map(|key| scope.spawn(|| env.hmvm(["exec", "--json", "--cache", key, "--", command])))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("hmvm ran"))
            .collect()
    });
    let results: Vec<Value> = runs
        .iter()
        .map(|run| TestEnv::last_event(&run.clone().success()))
        .collect();
    let outputs: Vec<Value> = runs
        .iter()
        .map(|run| {
            let mut events = TestEnv::events(run).into_iter();
            let line = events.find(|event| event["event"] == "output");
            line.expect("a line of output")["line"].clone()
        })
        .collect();
    let distinct = |values: &[Value]| {
        let texts: BTreeSet<String> = values.iter().map(Value::to_string).collect();
        texts.len()
    };
    assert_eq!(distinct(&outputs[..8]), 8, "each key of its own ran");
    assert_eq!(distinct(&outputs[8..]), 1, "the equal ones ran once");
    let ran = |results: &[Value]| {
        results
            .iter()
            .filter(|result| result["cached"] == false)
            .count()
    };
    assert_eq!((ran(&results[..8]), ran(&results[8..])), (8, 1));
    let snapshots: Vec<Value> = results
        .iter()
        .map(|result| result["snapshot"].clone())
        .collect();
    assert_eq!(distinct(&snapshots), 9);
    let list = env.json(["snapshot", "ls", "--json"]);
    assert_eq!(
        list.as_array().map(Vec::len),
        Some(9),
        "nothing else was kept"
    );
    assert_eq!(env.leftovers(), json!([]));
    assert_eq!(env.traces(), Vec::<String>::new());
}

#[test]
fn a_store_of_another_user_is_refused_and_left_as_it_is() {
    if !rustix::process::geteuid().is_root() {
        return hm_vm_testkit::skip::Skip::new("only root can make a store of another user")
            .report();
    }
    let env = TestEnv::new();
    env.hmvm(["snapshot", "ls"]).success();
    chown(env.store(), Some(12_345), Some(12_345)).expect("another owner");
    let before = tree(&env);
    for arguments in [
        &["exec", "--", "true"][..],
        &["snapshot", "ls"],
        &["cache", "gc"],
    ] {
        let run = env.hmvm(arguments).exits_with(125);
        let lines: Vec<&str> = run.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{}", run.stderr);
        assert!(
            lines[0].starts_with("error: cannot open the store $DIR/store: ")
                && lines[0].contains("owner") | lines[0].contains("belongs to"),
            "{}",
            run.stderr
        );
        assert!(lines[1].starts_with("hint: "), "{}", run.stderr);
    }
    assert_eq!(tree(&env), before);
}

/// Names and modes of the store's own entries.
fn tree(env: &TestEnv) -> BTreeSet<(String, u32, u64)> {
    let entries = fs::read_dir(env.store()).expect("the store");
    entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let metadata = entry.metadata().expect("metadata");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, metadata.permissions().mode(), metadata.len())
        })
        .collect()
}
