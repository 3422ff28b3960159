//! `cache` and `explain`.

use hm_vm_testkit::require;
use serde_json::{Value, json};

use crate::env::TestEnv;
use crate::listings::snapshot;

#[test]
fn keys_are_explained() {
    let env = require!(TestEnv::machine());
    env.write("project/file", "1");
    let run = |arguments: &[&str]| {
        env.result(&[&["exec", "--json", "--inject", "project"], arguments].concat())
    };
    let old = run(&["-e", "A=1", "-e", "GONE=x", "--", "true"]);
    env.write("project/file", "2");
    let new = run(&["-e", "A=2", "--", "true\u{1b}[2J || true"]);
    let (old_key, new_key) = (
        old["key"].as_str().expect("a key"),
        new["key"].as_str().expect("a key"),
    );
    // A key, the beginning of one, and the beginning of a snapshot's id.
    let snapshot = new["snapshot"].as_str().expect("a snapshot");
    let out = env
        .hmvm(["explain", &old_key[..14], &snapshot[..10]])
        .success()
        .stdout;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 4, "{out}");
    assert_eq!(lines[0], "cmd       true → true\\u{1b}[2J || true");
    assert_eq!(lines[1], "env.A     1 → 2");
    assert_eq!(lines[2], "env.GONE  x → absent");
    assert!(lines[3].starts_with("inject    "), "{out}");
    let json = env.json(["explain", "--json", old_key, new_key]);
    assert_eq!(
        json["changes"][1],
        json!({ "component": "env.A", "old": "1", "new": "2" })
    );
    let run = env.hmvm(["explain", "--exit-code", old_key, new_key]);
    assert_eq!(run.code, 1);
    let run = env
        .hmvm(["explain", "--exit-code", old_key, old_key])
        .success();
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str()),
        ("", "hmvm: no difference\n")
    );

    env.hmvm(["exec", "--cache", "mine", "--", "true"])
        .success();
    assert_eq!(
        env.hmvm(["explain", "mine", old_key])
            .exits_with(125)
            .stderr,
        "error: nothing is known of what key mine was made from\n\
         hint: only keys of --cache auto derive from parts that can be compared\n"
    );
    let run = env.hmvm(["explain", "hm1-", old_key]).exits_with(125);
    assert!(
        run.stderr
            .starts_with("error: key or snapshot \"hm1-\" is ambiguous: hm1-"),
        "{}",
        run.stderr
    );
}

#[test]
fn the_cache_is_listed_pinned_and_cleaned() {
    let env = require!(TestEnv::machine());
    for key in ["one", "two", "three"] {
        env.hmvm(["exec", "-q", "--cache", key, "--", "echo x > /x"])
            .success();
    }
    env.hmvm(["exec", "-q", "--cache", "one", "--", "true"])
        .success();
    let keys = |list: &Value| -> Vec<String> {
        let entries = list.as_array().expect("a list");
        entries
            .iter()
            .filter_map(|entry| entry["key"].as_str().map(str::to_owned))
            .collect()
    };
    let list = env.json(["cache", "ls", "--json"]);
    assert_eq!(keys(&list), ["one", "three", "two"], "last used first");
    assert_eq!(list[0]["hits"], json!(1));

    env.hmvm(["cache", "pin", "two"]).success();
    let run = env.hmvm(["cache", "rm", "two"]).exits_with(125);
    assert_eq!(
        run.stderr,
        "error: key two is pinned\nhint: hmvm cache unpin two\n"
    );
    let pinned = env.json(["cache", "ls", "--json"])[2]["snapshot"]
        .as_str()
        .expect("an id")
        .to_owned();
    let run = env.hmvm(["snapshot", "rm", &pinned]).exits_with(125);
    assert!(
        run.stderr.contains("is pinned by key two"),
        "{}",
        run.stderr
    );

    // What was used a moment ago may be in use still.
    let spared = env.json(["cache", "gc", "--max-entries", "1", "--json"]);
    assert_eq!(
        (&spared["removed"], &spared["kept"]),
        (&json!([]), &json!(3))
    );
    let at_once = ["cache", "gc", "--spare", "1ms", "--json"];
    let gc = |options: &[&str]| env.json([&at_once[..], options].concat());
    let why = |report: &Value| -> Vec<String> {
        let removed = report["removed"].as_array().expect("a list");
        removed
            .iter()
            .map(|one| {
                format!(
                    "{}: {}",
                    one["keys"][0].as_str().unwrap_or("-"),
                    one["reason"]
                )
            })
            .collect()
    };
    let would = gc(&["--max-entries", "1", "--dry-run"]);
    assert_eq!(why(&would), ["three: \"entries\"", "one: \"entries\""]);
    let would = gc(&["--max-size", "1B", "--keep", "2", "--dry-run"]);
    assert_eq!(why(&would), ["three: \"bytes\""], "the floor holds");
    let would = gc(&["--unused-for", "1ms", "--dry-run"]);
    assert_eq!(
        why(&would),
        ["three: \"age\"", "one: \"age\""],
        "what is pinned stays"
    );
    assert_eq!(
        keys(&env.json(["cache", "ls", "--json"])).len(),
        3,
        "a dry run removes nothing"
    );
    assert_eq!(
        why(&gc(&[])),
        [""; 0],
        "without limits nothing goes that a key holds"
    );
    let told = env
        .hmvm(["cache", "gc", "--spare", "1ms", "--max-entries", "2"])
        .success();
    let lines: Vec<&str> = told.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", told.stdout);
    assert!(
        lines[1].ends_with("  three  over the number of entries"),
        "{}",
        told.stdout
    );
    assert!(
        told.stderr
            .starts_with("hmvm: 1 snapshot and 0 layers that nothing used are gone, ")
    );
    assert_eq!(keys(&env.json(["cache", "ls", "--json"])), ["one", "two"]);
    env.hmvm(["cache", "unpin", "two"]).success();
    env.hmvm(["cache", "rm", "one", "two"]).success();
    assert_eq!(env.json(["snapshot", "ls", "--json"]), json!([]));

    let stats = env.json(["cache", "stats", "--json"]);
    assert_eq!(
        (&stats["keys"], &stats["snapshots"]),
        (&json!(0), &json!(0))
    );
    assert!(
        env.hmvm(["cache", "stats"])
            .success()
            .stdout
            .contains("snapshots")
    );
}

#[test]
fn collection_removes_what_no_key_holds_and_says_how_much_it_freed() {
    let env = require!(TestEnv::machine());
    let big = [
        "--cache",
        "off",
        "--",
        "head -c 3000000 /dev/urandom > /big",
    ];
    let id = snapshot(&env, &big);
    let stats = env.json(["cache", "stats", "--json"]);
    assert!(stats["bytes"].as_u64() >= Some(3_000_000), "{stats}");
    let report = env.json(["cache", "gc", "--json"]);
    assert_eq!(report["removed"], json!([]), "it may be in use for a day");
    let report = env.json(["cache", "gc", "--json", "--unused-for", "1ms"]);
    let removed = &report["removed"][0];
    assert_eq!(
        (&removed["snapshot"], &removed["reason"], &removed["keys"]),
        (&json!(id), &json!("unowned"), &json!([]))
    );
    assert!(
        report["freed_bytes"].as_u64() >= Some(3_000_000),
        "{report}"
    );
    let stats = env.json(["cache", "stats", "--json"]);
    // What is left belongs to the image.
    assert!(stats["bytes"].as_u64() < Some(1_000_000), "{stats}");
    assert_eq!(
        (&stats["snapshots"], &stats["unused_layers"]),
        (&json!(0), &json!(0))
    );
}
