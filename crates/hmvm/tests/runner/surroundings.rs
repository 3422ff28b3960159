//! Odd surroundings: what a service, a script or a bare container starts the program with.

use std::fs;
use std::process::{Command, Stdio};

use hm_vm_testkit::require;
use serde_json::json;

use crate::env::TestEnv;

#[test]
fn homes_that_are_missing_or_relative_do_not_matter() {
    let env = require!(TestEnv::machine());
    let echo = ["exec", "-q", "--", "echo ran"];
    let run = env.run(env.command(echo).env_remove("HOME"));
    assert_eq!(run.success().stdout, "ran\n");
    let relative = ["exec", "-q", "--", "echo relative"];
    let run = env.run(
        env.command(relative)
            .env_remove("HMVM_STORE")
            .env("XDG_DATA_HOME", "here"),
    );
    assert_eq!(run.success().stdout, "relative\n");
    assert!(env.path().join("home/.local/share/hm-vm/format").exists());
    assert!(
        !env.path().join("here").exists(),
        "relative ones are ignored"
    );
    let run = env.run(
        env.command(relative)
            .env_remove("HMVM_STORE")
            .env_remove("HOME")
            .env("XDG_DATA_HOME", "here"),
    );
    assert_eq!(run.code, 125);
    let run = env.run(
        env.command(relative)
            .env_remove("HMVM_STORE")
            .env_remove("HOME")
            .env("XDG_DATA_HOME", env.path().join("data")),
    );
    assert_eq!(run.success().stdout, "relative\n");
    assert!(env.path().join("data/hm-vm/format").exists());
}

/// Runs a line of shell in which `$0` is the program.
fn shell(env: &TestEnv, script: &str) -> Command {
    let program = env.command([""; 0]);
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(program.get_program())
        .env_clear()
        .current_dir(env.path())
        .stdin(Stdio::null());
    for (name, value) in program.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
}

#[test]
fn standard_streams_may_be_closed() {
    let env = require!(TestEnv::machine());
    let run = env.run(&mut shell(
        &env,
        "\"$0\" exec -q --cache off -- 'cat; echo end' <&-",
    ));
    assert_eq!(run.success().stdout, "end\n");
    let run = env.run(&mut shell(
        &env,
        "\"$0\" exec -q --cache off -- 'echo out; echo err >&2; exit 3' >&-",
    ));
    assert_eq!((run.code, run.stderr.as_str()), (3, "err\n"));
    let run = env.run(&mut shell(
        &env,
        "\"$0\" exec --cache off -- 'echo out; exit 4' 2>&-",
    ));
    assert_eq!((run.code, run.stdout.as_str()), (4, "out\n"));
    let run = env.run(&mut shell(
        &env,
        "\"$0\" exec --cache all -- 'echo x > /x' <&- >&- 2>&-",
    ));
    assert_eq!(run.code, 0);
    assert_eq!(
        env.json(["cache", "ls", "--json"]).as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(env.leftovers(), json!([]));
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let env = require!(TestEnv::machine());
    let full = || fs::File::create("/dev/full").expect("/dev/full");
    let run = env.run(
        env.command(["exec", "--cache", "off", "--", "echo x"])
            .stdout(full()),
    );
    assert_eq!(run.code, 125);
    assert_eq!(
        run.stderr,
        "error: cannot write the command's output: No space left on device (os error 28)\n\
         hint: the disk or your quota is full; free some space on it\n"
    );
    let run = env.run(env.command(["snapshot", "ls", "--json"]).stdout(full()));
    assert_eq!(run.code, 125);
    assert!(
        run.stderr
            .starts_with("error: cannot write to standard output: "),
        "{}",
        run.stderr
    );
}

#[test]
fn plain_terminals_and_locales_do_not_matter() {
    let env = require!(TestEnv::machine());
    for (name, value) in [
        ("TERM", "dumb"),
        ("LANG", "C"),
        ("LC_ALL", "POSIX"),
        ("PATH", ""),
    ] {
        let arguments = [
            "exec",
            "--cache",
            "off",
            "--",
            "echo grün; echo $PATH | cut -c 1-4",
        ];
        let run = env.run(env.command(arguments).env(name, value)).success();
        assert_eq!(run.stdout, "grün\n/usr\n", "{name}");
        assert!(!run.stderr.contains('\u{1b}'), "{}", run.stderr);
    }
}

#[test]
fn a_working_directory_that_is_gone_matters_only_where_it_is_needed() {
    let env = require!(TestEnv::machine());
    let gone = |command: &str| {
        let script = format!("mkdir gone && cd gone && rmdir ../gone && \"$0\" {command}");
        env.run(&mut shell(&env, &script))
    };
    assert_eq!(gone("exec -q --cache off -- pwd").success().stdout, "/\n");
    for needs in [
        "exec --inject . -- true",
        "image import root name",
        "snapshot ls --store here",
    ] {
        let run = gone(needs).exits_with(125);
        let lines: Vec<&str> = run.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{needs}: {}", run.stderr);
        assert!(
            lines[0].starts_with("error: ")
                && lines[0].ends_with(": the working directory of hmvm is gone"),
            "{needs}: {}",
            run.stderr
        );
        assert!(lines[1].starts_with("hint: "), "{needs}: {}", run.stderr);
    }
    let absolute = format!(
        "exec -q --inject {} -- ls",
        env.path().join("home").display()
    );
    gone(&absolute).success();
}
