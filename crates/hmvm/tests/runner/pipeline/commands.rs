//! The commands around `hmvm run`.

use hm_vm_testkit::require;

use super::support::Project;

const CHAIN: &str = r#"
[pipeline]
name = "ci"
image = "host"
[steps.build]
inject = "."
run = "cat input; date +%N > /built"
[steps.test]
from = "build"
run = "echo out; echo err >&2; test ! -e fail"
"#;

#[test]
fn a_plan_tells_what_would_run_and_changes_nothing() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "1\n");
    let plan = project.hmvm(&["plan", "--json"]).success();
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).expect("JSON");
    assert_eq!(plan["steps"][0]["decision"], "run", "{plan:#}");
    assert_eq!(project.snapshots(), 0);
    project.run(&[]).exits_with(0);
    let plan = project.hmvm(&["plan"]).success();
    assert!(plan.stdout.contains("be cached"), "{}", plan.stdout);
    assert!(
        plan.stderr.contains("2 steps: 0 would run, 2 cached"),
        "{}",
        plan.stderr
    );
}

#[test]
fn explain_tells_which_file_changed() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "1\n");
    project.run(&[]).exits_with(0);
    let same = project.hmvm(&["explain", "build"]).success();
    assert!(same.stdout.contains("cached"), "{same:?}");
    project.write("input", "2\n");
    project.write("added", "2\n");
    let told = project.hmvm(&["explain", "build"]).success().stdout;
    assert!(told.contains("inject"), "{told}");
    assert!(
        told.contains("changed  input") && told.contains("added    added"),
        "{told}"
    );
    let child = project.hmvm(&["explain", "test"]).success().stdout;
    assert!(child.contains("build"), "{child}");
}

#[test]
fn explain_tells_of_a_changed_command_and_of_a_removed_result() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "1\n");
    let first = project.run(&[]).exits_with(0);
    let key = first.step("test")["key"]
        .as_str()
        .expect("a key")
        .to_owned();
    project.env.hmvm(["cache", "rm", &key]).success();
    let told = project.hmvm(&["explain", "test"]).success().stdout;
    assert!(
        told.contains("its result is gone: a removal on request, just now"),
        "{told}"
    );
    project.write("hmvm.toml", CHAIN.replace("echo out", "echo other"));
    let told = project.hmvm(&["explain", "test"]).success().stdout;
    assert!(
        told.contains("cmd") && told.contains("echo other"),
        "{told}"
    );
}

#[test]
fn logs_and_runs_are_kept() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "1\n");
    project.run(&[]).exits_with(0);
    project.run(&[]).exits_with(0);
    let runs = project.env.json(["runs", "--json"]);
    assert_eq!(runs.as_array().map(Vec::len), Some(2), "{runs:#}");
    assert_eq!(runs[0]["verdict"], "succeeded");
    for run in ["1", "2"] {
        let log = project.hmvm(&["logs", run, "test"]).success();
        assert_eq!(
            (log.stdout.as_str(), log.stderr.as_str()),
            ("out\n", "err\n"),
            "run {run}"
        );
    }
    let all = project.hmvm(&["logs"]).success();
    assert!(all.stdout.contains("build"), "{all:?}");
}

#[test]
fn a_failed_step_can_be_entered() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "1\n");
    project.write("fail", "");
    let run = project.run(&[]).exits_with(1);
    assert!(run.step("test")["kept"].is_string(), "{:#?}", run.all);
    let plain = project.hmvm(&["run", "--plain"]).exits_with(1);
    assert!(
        plain.stderr.contains("hmvm shell --failed"),
        "{}",
        plain.stderr
    );
    // Only one kept state a pipeline: that of the run before is gone.
    assert_eq!(project.snapshots(), 2, "build and the kept state of test");
}

#[test]
fn verify_finds_what_is_not_reproducible() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "1\n");
    project.run(&[]).exits_with(0);
    let verify = project.hmvm(&["verify"]).exits_with(1);
    assert_eq!(
        verify.stdout,
        "build: differs in 1 path\n  C /built\ntest: the same\n"
    );
    let one = project.hmvm(&["verify", "test"]).success();
    assert_eq!(one.stdout, "test: the same\n");
    assert_eq!(project.snapshots(), 2, "nothing new is kept");
    project.assert_clean();
}

#[test]
fn graphs_and_the_schema_are_printed() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "1\n");
    let svg = project.hmvm(&["graph"]).success().stdout;
    assert!(svg.contains("<svg") && svg.contains("build"), "{svg}");
    let dot = project.hmvm(&["graph", "--output", "dot"]).success().stdout;
    assert!(dot.contains("digraph"), "{dot}");
    let schema = project.hmvm(&["schema"]).success().stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    assert!(schema.get("$schema").is_some());
}

#[test]
fn init_writes_a_file_that_runs_and_never_overwrites_one() {
    let project = require!(Project::new(CHAIN));
    let refused = project.hmvm(&["init"]).exits_with(125);
    assert!(
        refused.stderr.contains("is there already"),
        "{}",
        refused.stderr
    );
    std::fs::remove_file(project.path("hmvm.toml")).expect("a file");
    project.hmvm(&["init"]).success();
    project.run(&[]).exits_with(0);
}
