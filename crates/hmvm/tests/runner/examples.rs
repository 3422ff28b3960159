//! The examples do what they promise: run, skipped the next time, and run again where something changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use hm_vm_testkit::images::debian_root;
use hm_vm_testkit::privilege::need_program;
use hm_vm_testkit::require;
use hm_vm_testkit::skip::Skip;
use serde_json::json;

use crate::env::{Run, TestEnv};
use crate::example::{Example, Told, copy, repository};

/// Programs that the `host` image must have.
fn machine_with(programs: &[&str]) -> Result<TestEnv, Skip> {
    for program in programs {
        need_program(program)?;
    }
    TestEnv::machine()
}

fn outcomes<'a>(list: &[(&'a str, &'a str)]) -> BTreeMap<&'a str, &'a str> {
    list.iter().copied().collect()
}

#[test]
fn a_c_project_in_three_steps() {
    let env = require!(machine_with(&["cc", "make"]));
    let example = Example::new(env, "hello-c");
    let program = example.directory.join("build/wordfreq");

    let first = example.run();
    let ran = [
        ("configure", "succeeded"),
        ("make", "succeeded"),
        ("test", "succeeded"),
    ];
    assert_eq!(first.outcomes(), outcomes(&ran));
    assert_eq!(first.end("make")["output_files"], 1);
    assert!(
        fs::read(&program)
            .expect("the program")
            .starts_with(b"\x7fELF")
    );

    // Skipped as a whole, with its output, and with what it brings to the host.
    fs::remove_file(&program).expect("the program");
    let second = example.run();
    second.all_cached();
    assert_eq!(second.lines("test").last(), Some(&"10 passed, 0 failed"));
    assert_eq!(second.lines("test"), first.lines("test"));
    assert!(program.exists(), "brought again");

    // Only what depends on a change runs again.
    example.append("tests/run.sh", "\n# Changed.\n");
    assert_eq!(
        example.run().outcomes(),
        outcomes(&[
            ("configure", "cached"),
            ("make", "cached"),
            ("test", "succeeded")
        ])
    );
    example.append("src/main.c", "\n/* Changed. */\n");
    let changed = example.run();
    assert_eq!(
        changed.outcomes(),
        outcomes(&[
            ("configure", "cached"),
            ("make", "succeeded"),
            ("test", "succeeded")
        ])
    );
    assert_eq!(changed.lines("test").last(), Some(&"10 passed, 0 failed"));
    assert_eq!(example.env.leftovers(), json!([]));
}

#[test]
fn a_c_project_that_fails() {
    let env = require!(machine_with(&["cc", "make"]));
    let example = Example::new(env, "hello-c");
    example.append("src/main.c", "\nthis is no C\n");
    let run = example.env.run(&mut example.command(&["run", "--json"]));
    // What `make` exits with.
    let told = Told::new(run.exits_with(2));
    assert_eq!(
        told.outcomes(),
        outcomes(&[
            ("configure", "succeeded"),
            ("make", "failed"),
            ("test", "skipped")
        ])
    );
    let end = told.events.last().expect("an event");
    assert_eq!(end["event"], "run_ended");
    assert_eq!(end["verdict"], "failed");
    assert_eq!(end["step"], "make");
    assert_eq!(end["exit_code"], 2);
    assert!(!example.directory.join("build").exists());
    // Shown with its last lines, where the rest is, and how to look at it.
    let run = example
        .env
        .run(&mut example.command(&["run"]))
        .exits_with(2);
    let both = format!("{}{}", run.stdout, run.stderr);
    assert!(both.contains("src/main.c"), "{both}");
    assert!(both.contains("hmvm shell --failed"), "{both}");
}

#[test]
fn a_matrix_with_conditions() {
    let env = require!(machine_with(&["bash", "git"]));
    let example = Example::new(env, "matrix");
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=test", "-c", "user.email=test@example.org"])
            .args(arguments)
            .env("HOME", example.env.path())
            .current_dir(&example.directory);
        let output = git.output().expect("git");
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "all"]);

    let first = example.run();
    let mut expected = outcomes(&[
        ("again[shell=bash,locale=C]", "succeeded"),
        ("documentation", "skipped"),
        ("greet[shell=bash,locale=C.UTF-8]", "succeeded"),
        ("greet[shell=bash,locale=C]", "succeeded"),
        ("greet[shell=sh,locale=C]", "succeeded"),
        ("nightly", "skipped"),
        ("report", "succeeded"),
        ("shout", "failed"),
    ]);
    assert_eq!(first.outcomes(), expected);
    assert_eq!(
        first.lines("greet[shell=bash,locale=C.UTF-8]"),
        ["hello, world"]
    );
    assert_eq!(first.lines("again[shell=bash,locale=C]"), ["hello, world"]);
    assert_eq!(first.lines("report"), ["greeted world in every shell"]);
    assert_eq!(first.end("shout")["allowed"], true);
    assert_eq!(first.end("shout")["exit_code"], 3);
    assert_eq!(first.end("nightly")["reason"], "condition");

    // Only what failed is not remembered.
    for outcome in expected.values_mut() {
        if *outcome == "succeeded" {
            *outcome = "cached";
        }
    }
    assert_eq!(example.run().outcomes(), expected);

    example.append("README.md", "\nMore.\n");
    expected.insert("documentation", "succeeded");
    expected.insert("nightly", "succeeded");
    let night = example.run_with(&[("NIGHTLY", "1")]);
    assert_eq!(night.outcomes(), expected);
    assert_eq!(night.lines("nightly"), ["only at night"]);

    // The name of a matrix stands for all of its steps.
    let run = example.command(&["run", "--json", "greet"]);
    let told = Told::new(example.env.run(&mut { run }).success());
    assert_eq!(told.outcomes().len(), 3);
    told.all_cached();
}

#[test]
fn services_beside_a_step() {
    let env = require!(TestEnv::machine());
    // The image with Redis is made beside the one without.
    let image = require!(debian_root()).with_file_name("redis.tar");
    let image =
        require!(image.is_file().then_some(image).ok_or_else(|| Skip::new(
            "needs target/images/redis.tar: run scripts/test as root once"
        )));
    let image = image.to_str().expect("UTF-8").to_owned();
    env.hmvm(["image", "import", &image, "redis"]).success();
    let example = Example::new(env, "service");

    let first = example.run();
    assert_eq!(first.outcomes(), outcomes(&[("test", "succeeded")]));
    assert_eq!(first.lines("test").last(), Some(&"both servers answered"));
    let services: Vec<&str> = first
        .of("service_output")
        .filter_map(|event| event["service"].as_str())
        .collect();
    assert!(
        services.contains(&"cache") && services.contains(&"queue"),
        "{services:?}"
    );

    let second = example.run();
    second.all_cached();
    assert_eq!(second.lines("test"), first.lines("test"));
    assert_eq!(second.of("service_output").count(), 0, "none is started");
    assert_eq!(example.env.traces(), [""; 0]);
}

const TOKEN: &str = "tk-5d1e09c7b2a84f36";
const PASSWORD: &str = "pw-93c2f7e1";

#[test]
fn secrets_and_caches() {
    let env = require!(TestEnv::machine());
    let example = Example::new(env, "secrets-and-caches");
    fs::write(
        example.directory.join("password.txt"),
        format!("{PASSWORD}\n"),
    )
    .expect("a secret");
    let token = [("EXAMPLE_TOKEN", TOKEN)];

    let first = example.run_with(&token);
    assert_eq!(
        first.outcomes(),
        outcomes(&[("fetch", "succeeded"), ("use", "succeeded")])
    );
    assert_eq!(
        first.lines("fetch"),
        [
            "as *** with ***",
            "left-pad-1.3: downloading",
            "is-odd-3.0: downloading"
        ]
    );
    assert_eq!(
        first.lines("use"),
        ["is-odd-3.0", "left-pad-1.3", "password: none"]
    );

    // What is skipped needs no secret.
    let second = example.run();
    second.all_cached();
    assert_eq!(second.lines("fetch"), first.lines("fetch"));

    example.append("refresh", "again\n");
    let third = example.run_with(&token);
    assert_eq!(
        third.outcomes(),
        outcomes(&[("fetch", "succeeded"), ("use", "succeeded")])
    );
    assert_eq!(
        third.lines("fetch")[1..],
        [
            "left-pad-1.3: was downloaded before",
            "is-odd-3.0: was downloaded before"
        ]
    );

    // The step that needs one and has none.
    example.append("refresh", "once more\n");
    let run = example
        .env
        .run(&mut example.command(&["run"]))
        .exits_with(125);
    assert!(run.stderr.contains("EXAMPLE_TOKEN"), "{}", run.stderr);

    let mut shown: Vec<Run> = [first, second, third].map(|told| told.run).to_vec();
    shown.push(run);
    for arguments in [
        &["run", "-vv"][..],
        &["runs"],
        &["logs"],
        &["plan"],
        &["cache", "ls", "--json"],
    ] {
        let mut command = example.command(arguments);
        shown.push(example.env.run(command.envs(token)).success());
    }
    for run in &shown {
        let both = format!("{}{}", run.stdout, run.stderr);
        assert!(!both.contains(TOKEN) && !both.contains(PASSWORD), "{both}");
    }
    let files = files_with(&example.env.store(), &[TOKEN, PASSWORD]);
    assert!(files.is_empty(), "{files:?}");
}

/// Files below a directory in which one of these words is.
fn files_with(directory: &Path, words: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let kind = path.symlink_metadata().expect("a file").file_type();
        if kind.is_dir() {
            found.extend(files_with(&path, words));
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap_or_default();
            let has = |word: &&str| {
                let word = word.as_bytes();
                content.windows(word.len()).any(|window| window == word)
            };
            if words.iter().any(has) {
                found.push(path);
            }
        }
    }
    found
}

/// Compiles on all processors.
#[test]
fn this_repository_heavy() {
    let env = require!(machine_with(&["cc"]));
    if need_program("rustc").is_ok() {
        let status = Command::new(repository().join("scripts/offline-rust")).status();
        assert!(status.expect("scripts/offline-rust").success());
    }
    let made = repository().join("target/offline-rust");
    require!(
        made.join("made-for")
            .is_file()
            .then_some(())
            .ok_or_else(|| Skip::new("needs target/offline-rust: run scripts/offline-rust once"))
    );
    // A copy, as somebody may be at work here.
    let project = env.path().join("project");
    for directory in ["benches/src", "crates", "xtask"] {
        copy(&repository().join(directory), &project.join(directory));
    }
    for file in [
        "Cargo.toml",
        "Cargo.lock",
        "clippy.toml",
        "hmvm.toml",
        "benches/Cargo.toml",
    ] {
        fs::copy(repository().join(file), project.join(file)).expect("a copy");
    }
    fs::create_dir(project.join("target")).expect("a directory");
    symlink(&made, project.join("target/offline-rust")).expect("a link");
    let run = || {
        let mut command = env.command(["run", "--json"]);
        Told::new(env.run(command.current_dir(&project)).success())
    };
    let first = run();
    let steps = ["build", "lint", "rust", "sources", "test"];
    assert_eq!(
        first.outcomes(),
        outcomes(&steps.map(|step| (step, "succeeded")))
    );
    let passed = |line: &&str| line.starts_with("test result: ok. ");
    assert!(
        first.lines("test").iter().any(passed),
        "{:?}",
        first.lines("test")
    );
    run().all_cached();
}
