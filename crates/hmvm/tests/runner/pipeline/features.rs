//! What steps can have: matrices, conditions, caches, secrets, services, users, shells.

use std::fs;
use std::path::Path;

use hm_vm_testkit::require;

use super::support::{Project, outcomes};

fn pipeline(steps: &str) -> String {
    format!("[pipeline]\nimage = \"host\"\n{steps}")
}

#[test]
fn a_matrix_expands_and_is_needed_as_a_whole() {
    let project = require!(Project::new(&pipeline(
        r#"
[steps.build]
run = "echo built ${matrix.os} ${matrix.v}"
matrix = { os = ["a", "b"], v = [1, 2], exclude = [{ os = "b", v = 2 }] }
[steps.pack]
from = "build"
matrix = { os = ["a"], v = [1] }
run = "echo packed"
[steps.all]
needs = "build"
run = "echo all"
"#
    )));
    let run = project.run(&[]).exits_with(0);
    let expected = [
        ("all", "succeeded"),
        ("build[os=a,v=1]", "succeeded"),
        ("build[os=a,v=2]", "succeeded"),
        ("build[os=b,v=1]", "succeeded"),
        ("pack[os=a,v=1]", "succeeded"),
    ];
    assert_eq!(run.outcomes(), outcomes(&expected));
    assert_eq!(run.output("build[os=b,v=1]"), ["built b 1"]);
}

#[test]
fn conditions_look_at_the_environment_and_at_git() {
    let project = require!(Project::new(&pipeline(
        r#"
[steps.env]
run = "echo env"
if = 'env.MODE == "full"'
[steps.docs]
run = "echo docs"
if = 'changed("docs/**")'
[steps.forked]
from = "env"
run = "true"
[steps.after]
needs = "env"
run = "echo after"
"#
    )));
    project.write("docs/a", "1");
    let git = |arguments: &[&str]| {
        let done = std::process::Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(arguments)
            .current_dir(project.path("."))
            .output()
            .expect("git");
        assert!(done.status.success(), "{done:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "first"]);
    let run = project.run(&[]).exits_with(0);
    let expected = [
        ("env", "skipped"),
        ("docs", "skipped"),
        ("forked", "skipped"),
        ("after", "succeeded"),
    ];
    assert_eq!(run.outcomes(), outcomes(&expected));
    project.write("docs/a", "2");
    // The variable is in the environment of every step as well: all of them have other keys.
    let run = project.run(&["-e", "MODE=full"]).exits_with(0);
    assert!(
        run.outcomes()
            .values()
            .all(|outcome| outcome == "succeeded"),
        "{:?}",
        run.outcomes()
    );
}

#[test]
fn a_cache_directory_outlives_runs_and_is_in_no_snapshot() {
    let project = require!(Project::new(&pipeline(
        r#"
[steps.a]
run = "cat /var/cache/x/f 2>/dev/null; echo kept >> /var/cache/x/f"
cache = "off"
caches = { x = "/var/cache/x" }
[steps.b]
from = "a"
run = "ls -A /var/cache/x"
"#
    )));
    let first = project.run(&[]).exits_with(0);
    assert!(first.output("a").is_empty());
    assert!(
        first.output("b").is_empty(),
        "what is in the cache is in no snapshot"
    );
    assert_eq!(project.run(&[]).exits_with(0).output("a"), ["kept"]);
    let list = project.env.json(["cache", "dir", "ls", "--json"]);
    assert_eq!(list[0]["name"], "x");
    project.env.hmvm(["cache", "dir", "rm", "x"]).success();
    assert!(project.run(&[]).exits_with(0).output("a").is_empty());
    project.assert_clean();
}

#[test]
fn steps_with_one_locked_cache_do_not_run_at_once() {
    let step = |name: &str| {
        format!(
            "[steps.{name}]\nrun = \"test ! -e /c/busy && touch /c/busy && sleep 0.2 && rm /c/busy\"\ncaches = {{ c = \"/c\" }}\n"
        )
    };
    let steps: String = ["a", "b", "c"].map(step).concat();
    let project = require!(Project::new(&pipeline(&steps)));
    project.run(&["-j", "3"]).exits_with(0);
}

const SECRET: &str = "hunter2-is-the-secret";

#[test]
fn secrets_are_nowhere_but_in_the_step() {
    let project = require!(Project::new(&pipeline(
        r#"
[steps.a]
run = '''
test "$(cat /run/secrets/token)" = "$(printf '%s' "$PASSWORD")" || exit 9
cat /run/secrets/token; echo; echo "x${PASSWORD}y" >&2
printf 'h'; sleep 0.05; printf 'unter2-is-the-secret'; echo
'''
secrets = { token = { env = "TOKEN" }, password = { file = "password", variable = "PASSWORD" } }
[steps.b]
from = "a"
run = "test ! -e /run/secrets/token && echo \"[$PASSWORD]\""
"#
    )));
    project.write("password", format!("{SECRET}\n"));
    for mode in ["--json", "--plain"] {
        let mut command = project.command(&["run", mode, "--no-cache"]);
        let run = project.env.run(command.env("TOKEN", SECRET)).success();
        assert!(
            !run.stdout.contains(SECRET) && !run.stderr.contains(SECRET),
            "{run:?}"
        );
        assert!(
            run.stdout.contains("x***y") || run.stderr.contains("x***y"),
            "{run:?}"
        );
        assert!(run.stdout.contains("[]"), "{run:?}");
    }
    let logs = project.hmvm(&["logs"]).success();
    assert!(logs.stdout.contains("***"), "{logs:?}");
    assert!(!format!("{logs:?}").contains(SECRET));
    assert_absent(&project.env.store());
    // Another value is no other key.
    let mut command = project.command(&["run", "--json"]);
    let run = project.env.run(command.env("TOKEN", "another-value"));
    let events = super::support::Events::of(&run).exits_with(0);
    assert_eq!(
        events.outcomes(),
        outcomes(&[("a", "cached"), ("b", "cached")])
    );
    // A hit needs none at all.
    assert_eq!(project.run(&[]).exits_with(0).outcomes()["a"], "cached");
}

/// Fails if the secret is in any file below.
fn assert_absent(directory: &Path) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            assert_absent(&entry.path());
        } else if kind.is_file() {
            let content = fs::read(entry.path()).unwrap_or_default();
            let found = content
                .windows(SECRET.len())
                .any(|window| window == SECRET.as_bytes());
            assert!(!found, "the secret is in {}", entry.path().display());
        }
    }
}

#[test]
fn a_missing_secret_is_told_by_its_name() {
    let project = require!(Project::new(&pipeline(
        "[steps.a]\nrun = \"true\"\nsecrets = [\"TOKEN\"]\n"
    )));
    let run = project.run(&[]).exits_with(125);
    let message = run.step("a").to_string();
    assert!(message.contains("TOKEN is not set"), "{message}");
    project.assert_clean();
}

#[test]
fn a_service_runs_beside_its_step_and_ends_with_it() {
    // A server that needs nothing but Python, which the test machine has.
    let project = require!(Project::new(&pipeline(
        r#"
[steps.a]
run = "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://web:8123/\").read().decode())'"
[steps.a.services.web]
run = "mkdir /www && cd /www && echo served > index.html && exec python3 -m http.server 8123"
ready = { port = 8123, timeout = "20s" }
"#
    )));
    let run = project.run(&[]).exits_with(0);
    assert_eq!(
        run.output("a").first().map(String::as_str),
        Some("served"),
        "{:#?}",
        run.all
    );
    assert_eq!(
        project.run(&[]).exits_with(0).outcomes(),
        outcomes(&[("a", "cached")])
    );
    project.assert_clean();
}

#[test]
fn a_service_that_ends_too_early_breaks_the_step() {
    let project = require!(Project::new(&pipeline(
        r#"
[steps.a]
run = "true"
[steps.a.services.db]
run = "echo cannot start; exit 3"
ready = { port = 1, timeout = "20s" }
"#
    )));
    let run = project.run(&[]).exits_with(125);
    let ended = run.step("a").to_string();
    assert!(ended.contains("db was over before it was ready"), "{ended}");
    project.assert_clean();
}

#[test]
fn readiness_can_be_a_line_or_a_command() {
    let project = require!(Project::new(&pipeline(
        r#"
[steps.a]
run = "echo ran"
[steps.a.services.line]
run = "sleep 0.2; echo now ready for all; sleep 1000"
ready = { line = "ready for" }
[steps.a.services.command]
run = "sleep 1000"
ready = { run = "true" }
"#
    )));
    let run = project.run(&[]).exits_with(0);
    assert_eq!(run.output("a"), ["ran"]);
    project.assert_clean();
}

#[test]
fn another_shell_and_directory_are_inherited() {
    let project = require!(Project::new(&pipeline(
        r#"
[steps.a]
run = "false | true; echo unreached"
shell = "bash -eo pipefail"
allow_failure = true
[steps.b]
run = 'a=(x y); echo "${a[1]}"; mkdir -p /w'
shell = "bash"
[steps.c]
from = "b"
run = 'echo "$BASH_VERSION" | grep -q . && pwd'
workdir = "/w"
[steps.d]
from = "c"
run = "pwd"
"#
    )));
    let run = project.run(&[]).exits_with(0);
    assert_eq!(run.outcomes()["a"], "failed");
    assert_eq!(run.output("b"), ["y"]);
    assert_eq!(run.output("c"), ["/w"]);
    assert_eq!(run.output("d"), ["/w"]);
}

#[test]
fn several_injects_with_patterns_go_to_their_places() {
    let project = require!(Project::new(&pipeline(
        r#"
[steps.a]
run = "find /src /conf -type f | sort"
workdir = "/src"
inject = [
    { source = ".", include = ["*.c", "/docs/"], exclude = ["docs/private"] },
    { source = "etc/app.conf", target = "/conf" },
]
"#
    )));
    for name in [
        "main.c",
        "main.o",
        "sub/x.c",
        "docs/a",
        "docs/private",
        "etc/app.conf",
    ] {
        project.write(name, name);
    }
    let run = project.run(&[]).exits_with(0);
    let expected = [
        "/conf/app.conf",
        "/src/docs/a",
        "/src/main.c",
        "/src/sub/x.c",
    ];
    assert_eq!(run.output("a"), expected);
    // What the patterns leave out is no input.
    project.write("main.o", "other");
    assert_eq!(project.run(&[]).outcomes(), outcomes(&[("a", "cached")]));
}

#[test]
fn a_step_without_network_that_wants_one_gets_a_hint() {
    let project = require!(Project::new(&pipeline(
        "[steps.a]\nrun = \"echo 'curl: (6) Could not resolve host: example.org' >&2; exit 6\"\n"
    )));
    let run = project.run(&[]).exits_with(6);
    assert!(
        run.notices()
            .iter()
            .any(|text| text.contains("network = \"outbound\"")),
        "{:?}",
        run.notices()
    );
}
