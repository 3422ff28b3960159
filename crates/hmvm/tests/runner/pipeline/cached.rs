//! What is skipped, and what is not.

use hm_vm_testkit::require;

use super::support::{Project, outcomes};

const CHAIN: &str = r#"
[pipeline]
name = "ci"
image = "host"

[steps.deps]
run = "echo dep > /dep; echo made dep"

[steps.build]
from = "deps"
inject = "."
workdir = "/src"
run = "cat /dep input > app; echo built"
outputs = ["app"]

[steps.test]
from = "build"
run = "grep -q dep app; echo tested; pwd"
timeout = "5m"
"#;

#[test]
fn a_chain_runs_once_and_is_skipped_then() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "one\n");
    let first = project.run(&[]).exits_with(0);
    let ran = [
        ("deps", "succeeded"),
        ("build", "succeeded"),
        ("test", "succeeded"),
    ];
    assert_eq!(first.outcomes(), outcomes(&ran));
    assert_eq!(
        first.output("test"),
        ["tested", "/src"],
        "the working directory is inherited"
    );
    assert_eq!(project.read("app"), "dep\none\n");
    // The output lies in the injected directory now: it is no input.
    let second = project.run(&[]).exits_with(0);
    let cached = [("deps", "cached"), ("build", "cached"), ("test", "cached")];
    assert_eq!(second.outcomes(), outcomes(&cached));
    assert_eq!(
        second.output("test"),
        ["tested", "/src"],
        "the output is replayed"
    );
    assert_eq!(project.snapshots(), 3);
    project.assert_clean();
}

#[test]
fn outputs_come_back_on_a_hit() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "one\n");
    project.run(&[]).exits_with(0);
    std::fs::remove_file(project.path("app")).expect("an output");
    let again = project.run(&["build"]).exits_with(0);
    assert_eq!(
        again.outcomes(),
        outcomes(&[("deps", "cached"), ("build", "cached")])
    );
    assert_eq!(project.read("app"), "dep\none\n");
}

#[test]
fn a_change_runs_what_depends_on_it_and_nothing_else() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "one\n");
    project.run(&[]).exits_with(0);
    project.write("input", "two\n");
    let changed = project.run(&[]).exits_with(0);
    let expected = [
        ("deps", "cached"),
        ("build", "succeeded"),
        ("test", "succeeded"),
    ];
    assert_eq!(changed.outcomes(), outcomes(&expected));
    assert_eq!(project.read("app"), "dep\ntwo\n");
    // Back to what was: its results are still there.
    project.write("input", "one\n");
    let back = project.run(&[]).exits_with(0);
    let expected = [("deps", "cached"), ("build", "cached"), ("test", "cached")];
    assert_eq!(back.outcomes(), outcomes(&expected));
    assert_eq!(project.read("app"), "dep\none\n");
}

#[test]
fn a_step_that_is_made_again_makes_its_children_again() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "one\n");
    project.run(&[]).exits_with(0);
    let from = project.run(&["--from", "build"]).exits_with(0);
    let expected = [
        ("deps", "cached"),
        ("build", "succeeded"),
        ("test", "succeeded"),
    ];
    assert_eq!(from.outcomes(), outcomes(&expected));
    let all = project.run(&["--no-cache"]).exits_with(0);
    assert!(
        all.outcomes()
            .values()
            .all(|outcome| outcome == "succeeded")
    );
    let cached = project.run(&[]).exits_with(0);
    assert!(
        cached
            .outcomes()
            .values()
            .all(|outcome| outcome == "cached")
    );
    assert_eq!(project.snapshots(), 3, "replaced results are removed");
}

#[test]
fn an_evicted_parent_of_cached_steps_is_not_needed() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "one\n");
    let first = project.run(&[]).exits_with(0);
    let key = first.step("deps")["key"]
        .as_str()
        .expect("a key")
        .to_owned();
    project.env.hmvm(["cache", "rm", &key]).success();
    let second = project.run(&[]).exits_with(0);
    let expected = [("deps", "skipped"), ("build", "cached"), ("test", "cached")];
    assert_eq!(second.outcomes(), outcomes(&expected));
    // Needed again: it is made again, and with it all that forks from it.
    project.write("input", "two\n");
    let third = project.run(&[]).exits_with(0);
    assert!(
        third
            .outcomes()
            .values()
            .all(|outcome| outcome == "succeeded")
    );
}

#[test]
fn a_lost_snapshot_of_a_parent_is_made_again() {
    let project = require!(Project::new(CHAIN));
    project.write("input", "one\n");
    let first = project.run(&[]).exits_with(0);
    // The snapshot goes behind the cache's back.
    let deps = first.step("deps")["snapshot"]
        .as_str()
        .expect("a snapshot")
        .to_owned();
    project.env.hmvm(["snapshot", "rm", "--force", &deps]);
    project.write("input", "two\n");
    let second = project.run(&[]).exits_with(0);
    assert_eq!(second.outcomes()["build"], "succeeded", "{:#?}", second.all);
    assert_eq!(project.read("app"), "dep\ntwo\n");
}

#[test]
fn the_same_step_is_shared_with_exec_and_other_pipelines() {
    let project = require!(Project::new(
        "[pipeline]\nname = \"a\"\nimage = \"host\"\n[steps.one]\nrun = \"echo shared\"\n"
    ));
    let exec = project
        .hmvm(&["exec", "--image", "host", "--", "echo shared"])
        .success();
    assert_eq!(exec.stdout, "shared\n");
    assert_eq!(
        project.run(&[]).exits_with(0).outcomes(),
        outcomes(&[("one", "cached")])
    );
}

#[test]
fn uncached_leaves_take_no_snapshot_and_ephemeral_ones_are_removed() {
    let project = require!(Project::new(
        r#"
[pipeline]
image = "host"
[steps.base]
run = "echo 1 > /f"
cache = "off"
[steps.leaf]
from = "base"
run = "cat /f"
"#
    ));
    for _ in 0..2 {
        let run = project.run(&[]).exits_with(0);
        assert_eq!(run.output("leaf"), ["1"]);
        let expected = [("base", "succeeded"), ("leaf", "succeeded")];
        assert_eq!(run.outcomes(), outcomes(&expected));
        assert_eq!(project.snapshots(), 0);
    }
    project.assert_clean();
}

#[test]
fn a_result_older_than_its_time_to_live_is_made_again() {
    let project = require!(Project::new(
        "[pipeline]\nimage = \"host\"\n[steps.a]\nrun = \"true\"\ncache = { ttl = \"1ms\" }\n[steps.b]\nfrom = \"a\"\nrun = \"true\"\n"
    ));
    project.run(&[]).exits_with(0);
    let again = project.run(&[]).exits_with(0);
    let expected = [("a", "succeeded"), ("b", "succeeded")];
    assert_eq!(again.outcomes(), outcomes(&expected));
}

#[test]
fn extra_inputs_are_part_of_the_key() {
    let project = require!(Project::new(
        "[pipeline]\nimage = \"host\"\n[steps.a]\nrun = \"true\"\ncache = { inputs = [\"*.lock\"] }\n"
    ));
    project.write("x.lock", "1");
    project.run(&[]).exits_with(0);
    project.write("unrelated", "1");
    assert_eq!(project.run(&[]).outcomes(), outcomes(&[("a", "cached")]));
    project.write("x.lock", "2");
    assert_eq!(project.run(&[]).outcomes(), outcomes(&[("a", "succeeded")]));
}

#[test]
fn two_runs_at_once_do_the_work_once() {
    let project = require!(Project::new(
        "[pipeline]\nimage = \"host\"\n[steps.a]\nrun = \"sleep 0.5; date +%s%N\"\n[steps.b]\nfrom = \"a\"\nrun = \"sleep 0.2; date +%s%N\"\n"
    ));
    let start = || {
        let mut command = project.command(&["run", "--json"]);
        command
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("hmvm starts")
    };
    let children = [start(), start()];
    let outputs = children.map(|child| {
        let output = child.wait_with_output().expect("an end");
        super::support::Events::of(&project.env.finished(output)).exits_with(0)
    });
    for step in ["a", "b"] {
        assert_eq!(
            outputs[0].output(step),
            outputs[1].output(step),
            "{step} ran once"
        );
    }
}
