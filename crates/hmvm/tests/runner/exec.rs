//! `hmvm exec` for real, on the `host` image.

use std::os::unix::fs::PermissionsExt as _;

use hm_vm_testkit::require;

use crate::env::TestEnv;

#[test]
fn passes_output_and_exit_codes_through() {
    let env = require!(TestEnv::machine());
    let run = env.hmvm(["exec", "--", "echo out; echo err >&2; exit 3"]);
    assert_eq!((run.code, run.stdout.as_str()), (3, "out\n"));
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{}", run.stderr);
    assert_eq!(lines[0], "err");
    assert!(
        lines[1].starts_with("hmvm: exit code 3, no snapshot, ran in "),
        "{}",
        run.stderr
    );
    assert_eq!(env.hmvm(["exec", "--", "exit 255"]).code, 255);
    assert_eq!(env.hmvm(["exec", "--", "kill -9 $$"]).code, 128 + 9);
    assert_eq!(env.hmvm(["exec", "--", "no-such-program", "x"]).code, 127);
}

#[test]
fn arguments_reach_the_program_as_they_are() {
    let env = require!(TestEnv::machine());
    let odd = [
        "a b", "c'd", "\"", "$HOME", "*", "", "\\n", "`id`", "~", "-n", "a\nb", "grün",
    ];
    let arguments = ["exec", "-q", "--", "printf", "[%s]"]
        .into_iter()
        .chain(odd);
    let expected: String = odd.iter().map(|word| format!("[{word}]")).collect();
    assert_eq!(env.hmvm(arguments).success().stdout, expected);
    // The program, not the shell's builtin with rules of its own.
    let run = env.hmvm(["exec", "-q", "--", "echo", "a\\nb"]).success();
    assert_eq!(run.stdout, "a\\nb\n");
}

#[test]
fn output_is_exact() {
    let env = require!(TestEnv::machine());
    let command = "printf 'a\\000\\377b'; printf 'no end' >&2";
    let output = env
        .command(["exec", "-q", "--", command])
        .output()
        .expect("hmvm runs");
    assert_eq!(output.stdout, b"a\0\xffb");
    assert_eq!(output.stderr, b"no end");
}

#[test]
fn the_same_command_is_skipped_and_its_output_shown_again() {
    let env = require!(TestEnv::machine());
    let arguments = ["exec", "--", "date +%N; echo err >&2"];
    let first = env.hmvm(arguments).success();
    let second = env.hmvm(arguments).success();
    assert_eq!(second.stdout, first.stdout, "the output is replayed");
    assert!(first.stderr.contains("ran in"), "{}", first.stderr);
    assert!(
        second.stderr.starts_with("err\nhmvm: snapshot "),
        "{}",
        second.stderr
    );
    assert!(second.stderr.contains(", cached, "), "{}", second.stderr);
    // Anything that matters makes it run again.
    for changed in [
        &["exec", "--json", "--", "date +%N; echo err >&2 "][..],
        &[
            "exec",
            "--json",
            "-e",
            "A=1",
            "--",
            "date +%N; echo err >&2",
        ],
        &[
            "exec",
            "--json",
            "--workdir",
            "/etc",
            "--",
            "date +%N; echo err >&2",
        ],
    ] {
        let result = env.result(changed);
        assert_eq!(result["cached"], false, "{changed:?}");
    }
    // Limits do not: they decide whether a command succeeds, not what it makes.
    let result = env.result(&["exec", "--json", "--grace", "1s", "--", arguments[2]]);
    assert_eq!(result["cached"], true);
}

#[test]
fn cache_modes() {
    let env = require!(TestEnv::machine());
    let cached = |mode: &str, command: &str| {
        env.result(&["exec", "--json", "--cache", mode, "--", command])["cached"] == true
    };
    assert!(!cached("off", "true"));
    assert!(!cached("off", "true"));
    assert!(!cached("my key/\u{1b}", "true"));
    assert!(cached("my key/\u{1b}", "something else"));
    let keys = env.hmvm(["cache", "ls"]).success().stdout;
    assert!(keys.contains("my key/\\u{1b}"), "{keys}");
}

#[test]
fn a_later_command_forks_from_a_snapshot() {
    let env = require!(TestEnv::machine());
    let first = env.result(&[
        "exec",
        "--json",
        "--",
        "mkdir /data && echo one > /data/file",
    ]);
    let id = first["snapshot"].as_str().expect("a snapshot");
    let fork = [
        "exec",
        "-q",
        "--from",
        &id[..8],
        "--",
        "cat /data/file; echo two > /data/file",
    ];
    assert_eq!(env.hmvm(fork).success().stdout, "one\n");
    // The fork's writes are its own.
    let again = ["exec", "-q", "--from", id, "--", "cat", "/data/file"];
    assert_eq!(env.hmvm(again).success().stdout, "one\n");
    // Nothing of it reached this machine.
    assert!(!std::path::Path::new("/data/file").exists());
}

#[test]
fn injects_a_directory() {
    let env = require!(TestEnv::machine());
    let script = env.write("project/run.sh", "#!/bin/sh\npwd; cat sub/file; ls -A\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("modes");
    env.write("project/sub/file", "content\n");
    env.write("project/.gitignore", "ignored\n");
    env.write("project/ignored", "x");
    let arguments = ["exec", "-q", "--inject", "project", "--", "./run.sh; true"];
    let run = env.hmvm(arguments).success();
    assert_eq!(run.stdout, "/src\ncontent\n.gitignore\nrun.sh\nsub\n");
    let json = [
        "exec",
        "--json",
        "--inject",
        "project",
        "--",
        "./run.sh; true",
    ];
    assert_eq!(env.result(&json)["cached"], true);
    env.write("project/ignored", "y");
    assert_eq!(
        env.result(&json)["cached"],
        true,
        "an ignored file is no change"
    );
    env.write("project/sub/file", "changed\n");
    assert_eq!(env.result(&json)["cached"], false);
    let elsewhere = [
        "exec",
        "-q",
        "--inject",
        "project",
        "--workdir",
        "/w",
        "--",
        "pwd",
        "-P",
    ];
    assert_eq!(env.hmvm(elsewhere).success().stdout, "/w\n");
}

#[test]
fn environment_is_what_was_declared() {
    let env = require!(TestEnv::machine());
    let arguments = [
        "exec",
        "-q",
        "-e",
        "A=1",
        "-e",
        "TAKEN",
        "-e",
        "A=2 '3'",
        "--",
        "echo $A,$TAKEN,$NOT",
    ];
    let run = env.run(
        env.command(arguments)
            .env("TAKEN", "x=y")
            .env("NOT", "leaked"),
    );
    assert_eq!(run.success().stdout, "2 '3',x=y,\n");
}

#[test]
fn keeps_the_state_of_a_failure_when_asked() {
    let env = require!(TestEnv::machine());
    let command = "echo evidence > /evidence; exit 7";
    let run = env.hmvm(["exec", "--json", "--keep-failed", "--", command]);
    let result = TestEnv::last_event(&run.exits_with(7));
    let kept = result["kept"].as_str().expect("a kept snapshot");
    assert_eq!(result["snapshot"], serde_json::Value::Null);
    let run = env.hmvm(["exec", "-q", "--from", kept, "--", "cat", "/evidence"]);
    assert_eq!(run.success().stdout, "evidence\n");
    let run = env
        .hmvm(["exec", "--keep-failed", "--", command])
        .exits_with(7);
    assert!(
        run.stderr.contains("exit code 7, state kept as "),
        "{}",
        run.stderr
    );
    // A failure is never cached.
    assert_eq!(env.hmvm(["exec", "--", command]).exits_with(7).code, 7);
}

#[test]
fn a_time_limit_ends_the_command() {
    let env = require!(TestEnv::machine());
    let run = env.hmvm(["exec", "--timeout", "300ms", "--", "sleep 1000"]);
    assert_eq!(
        run.exits_with(124).stderr,
        "error: the command did not end within 300 ms\nhint: give it more time: --timeout TIME\n"
    );
    // Also while nobody reads its output.
    let run = env.hmvm(["exec", "--json", "--timeout", "300ms", "--", "sleep 1000"]);
    let error = TestEnv::last_event(&run.exits_with(124));
    assert_eq!(
        (&error["event"], &error["exit_code"]),
        (&"error".into(), &124.into())
    );
}

#[test]
fn names_that_do_not_exist_are_told() {
    let env = require!(TestEnv::machine());
    for (arguments, expected) in [
        (
            &[
                "exec", "--pull", "never", "--image", "nowhere", "--", "true",
            ][..],
            "error: image \"nowhere\" not found\n\
             hint: --pull never is set; hmvm image pull nowhere gets it\n",
        ),
        (
            &["exec", "--from", "abcdef", "--", "true"],
            "error: snapshot abcdef not found\nhint: hmvm snapshot ls lists the snapshots\n",
        ),
        (
            &["shell", "--from", ""],
            "error: standard input is not a terminal\nhint: hmvm exec runs commands without one\n",
        ),
        (
            &["snapshot", "inspect", "abc"],
            "error: snapshot abc not found\nhint: hmvm snapshot ls lists the snapshots\n",
        ),
        (
            &["snapshot", "cat", "abc:/x"],
            "error: snapshot abc not found\nhint: hmvm snapshot ls lists the snapshots\n",
        ),
        (
            &["snapshot", "rm", ""],
            "error: the id of the snapshot is empty\nhint: hmvm snapshot ls lists the snapshots\n",
        ),
        (
            &["cache", "rm", "abc\u{1b}[2J"],
            "error: key or snapshot \"abc\\u{1b}[2J\" not found\nhint: hmvm cache ls lists the keys\n",
        ),
        (
            &["cache", "pin", "abc"],
            "error: key or snapshot \"abc\" not found\nhint: hmvm cache ls lists the keys\n",
        ),
        (
            &["explain", "abc", "def"],
            "error: key or snapshot \"abc\" not found\nhint: hmvm cache ls lists the keys\n",
        ),
        (
            &["image", "inspect", "nowhere"],
            "error: image \"nowhere\" not found\n\
             hint: hmvm image ls lists the images; hmvm image pull and hmvm image import bring others\n",
        ),
        (
            &["image", "rm", "host"],
            "error: image \"host\" cannot be removed\n\
             hint: it is this machine's own root file system, and takes no space\n",
        ),
    ] {
        let run = env.hmvm(arguments);
        assert_eq!(run.stderr, expected, "{arguments:?}");
        assert_eq!((run.code, run.stdout.as_str()), (125, ""), "{arguments:?}");
    }
    assert_eq!(
        env.json(["snapshot", "ls", "--json"]),
        serde_json::json!([])
    );
    assert_eq!(env.json(["cache", "ls", "--json"]), serde_json::json!([]));
}

#[test]
fn a_working_directory_that_is_not_there_is_told() {
    let env = require!(TestEnv::machine());
    let run = env
        .hmvm(["exec", "--workdir", "/no/such", "--", "true"])
        .exits_with(125);
    assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    assert!(run.stderr.contains("/no/such"), "{}", run.stderr);
    assert!(run.stderr.lines().count() <= 2, "{}", run.stderr);
}

#[test]
fn a_store_that_is_not_ours_is_left_alone() {
    let env = TestEnv::new();
    let foreign = env.write("store/letter.txt", "dear diary");
    let run = env.hmvm(["exec", "--", "true"]).exits_with(125);
    assert!(
        run.stderr
            .starts_with("error: cannot open the store $DIR/store: "),
        "{}",
        run.stderr
    );
    assert_eq!(std::fs::read(foreign).expect("the letter"), b"dear diary");
    let file = env.write("file", "");
    let run = env
        .hmvm(["exec", "--store", &file.to_string_lossy(), "--", "true"])
        .exits_with(125);
    assert!(
        run.stderr
            .starts_with("error: cannot open the store $DIR/file: "),
        "{}",
        run.stderr
    );
}
