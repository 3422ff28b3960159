//! Wrong files, vanished inputs, changes under the run.

use hm_vm_testkit::require;
use hm_vm_testkit::skip::Skip;

use super::support::{Project, outcomes};

#[test]
fn a_wrong_file_gets_every_problem_with_its_place() {
    let project = require!(Project::new(
        "[pipeline]\nimage = \"host\"\n\n[steps.a]\nrun = \"true\"\ntimeuot = \"5m\"\n\n[steps.b]\nfrom = \"c\"\nrun = \"true\"\ntimeout = \"5 apples\"\n"
    ));
    let run = project.hmvm(&["run"]).exits_with(125);
    for expected in [
        "hmvm.toml:6:1",
        "timeuot",
        "timeout",
        "hmvm.toml:9:8",
        "hmvm.toml:11:11",
        "5 apples",
    ] {
        assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
    }
    assert!(run.stderr.contains("has 3 problems"), "{}", run.stderr);
}

#[test]
fn an_unknown_step_is_told_with_the_nearest_one() {
    let project = require!(Project::new("[steps.build]\nrun = \"true\"\n"));
    let run = project.hmvm(&["run", "biuld"]).exits_with(125);
    assert!(
        run.stderr.contains("biuld") && run.stderr.contains("build"),
        "{}",
        run.stderr
    );
}

#[test]
fn without_a_file_there_is_a_hint() {
    let project = require!(Project::new(""));
    std::fs::remove_file(project.path("hmvm.toml")).expect("a file");
    let run = project.hmvm(&["run"]).exits_with(125);
    assert!(run.stderr.contains("hmvm init"), "{}", run.stderr);
}

#[test]
fn the_file_is_found_upwards_and_paths_start_from_it() {
    let project = require!(Project::new(
        "[pipeline]\nimage = \"host\"\n[steps.a]\ninject = \"data\"\nrun = \"cat f > out\"\noutputs = [\"out\"]\n"
    ));
    project.write("data/f", "found\n");
    project.write("deep/down/x", "");
    let mut command = project.command(&["run", "-q"]);
    command.current_dir(project.path("deep/down"));
    project.env.run(&mut command).success();
    assert_eq!(project.read("out"), "found\n");
}

#[test]
fn a_missing_output_breaks_the_step() {
    let project = require!(Project::new(
        "[pipeline]\nimage = \"host\"\n[steps.a]\nrun = \"true\"\noutputs = [\"/no/such\"]\n"
    ));
    let run = project.run(&[]).exits_with(125);
    assert!(
        run.step("a").to_string().contains("/no/such"),
        "{:#?}",
        run.all
    );
}

#[test]
fn files_that_change_under_a_run_are_not_cached_under_the_old_key() {
    // The first step changes what the second one brings in, through its output: the plan saw the old file.
    let project = require!(Project::new(
        r#"
[pipeline]
image = "host"
[steps.edit]
run = "echo new > f"
workdir = "/tmp"
outputs = [{ path = "f", to = "data" }]
[steps.use]
needs = "edit"
inject = { source = "data", with_outputs = true }
run = "cat f"
"#
    ));
    project.write("data/f", "old\n");
    let first = project.run(&[]).exits_with(0);
    assert_eq!(first.output("use"), ["new"]);
    let second = project.run(&[]).exits_with(0);
    assert_eq!(
        second.outcomes(),
        outcomes(&[("edit", "cached"), ("use", "cached")])
    );
    assert_eq!(second.output("use"), ["new"]);
    // What was there when the first plan was made has no result.
    project.write("data/f", "old\n");
    let third = project.run(&["use"]).exits_with(0);
    assert_eq!(third.output("use"), ["new"], "{:#?}", third.all);
}

#[test]
fn the_hm_graph_format_runs() {
    let project = require!(Project::new(""));
    project.write(
        "graph.json",
        r#"{"version":"0","default_image":"host","graph":{"nodes":[
            {"step":{"key":"build","cmd":"echo built > /f"},"env":{"A":"1"}},
            {"step":{"key":"test","cmd":"cat /f; echo $A; pwd; ls","env":{"A":"2"}},"env":{}}
        ],"node_holes":[],"edge_property":"directed","edges":[[0,1,"builds_in"]]}}"#,
    );
    let run = project.run(&["--format", "hm-ir", "--file", "graph.json"]);
    // Its steps have a network, as hm's have.
    let lacking = "network policy \"outbound\" is not supported";
    if run.stderr.contains(lacking) || run.step("build")["reason"].to_string().contains("outbound")
    {
        hm_vm_testkit::require!(Err::<(), _>(Skip::new(lacking)));
    }
    let run = run.exits_with(0);
    let expected = ["built", "2", "/workspace", "graph.json", "hmvm.toml"];
    assert_eq!(run.output("test"), expected);
}
