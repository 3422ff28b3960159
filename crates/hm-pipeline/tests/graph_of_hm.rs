//! Right graphs of `hm`: what they mean.

use std::path::Path;
use std::time::Duration;

use hm_pipeline::parse::{Format, read};
use hm_pipeline::pipeline::{CacheMode, StepBase};
use hm_pipeline::{Pipeline, StepId};
use hm_vm_core::NetworkPolicy;

fn graph(text: &str) -> Pipeline {
    read(text, Format::HmIr, Path::new("/work/project"))
        .unwrap_or_else(|problems| panic!("{}", problems.render("graph.json", text)))
}

#[test]
fn a_graph() {
    let pipeline = graph(
        r#"{
  "version": "0",
  "default_image": "ubuntu:24.04",
  "timeout_seconds": 3600,
  "graph": {
    "nodes": [
      {
        "step": {
          "key": "deps", "label": ":package: deps", "cmd": "apt-get update", "image": null,
          "env": { "MODE": "slow" }, "timeout_seconds": 60,
          "cache": { "policy": "forever", "key": null }, "runner": null, "runner_args": null
        },
        "env": { "CI": "true", "MODE": "fast" }
      },
      { "step": { "key": "build", "cmd": "make", "cache": { "policy": "none" } }, "env": {} },
      { "step": { "key": "lint", "cmd": "lint", "image": "alpine", "runner": "vm", "runner_args": {} }, "env": {} },
      { "step": { "key": "test", "cmd": "make check", "image": "ubuntu:24.04", "cache": { "policy": "on_change", "key": "t" } }, "env": {} }
    ],
    "node_holes": [],
    "edge_property": "directed",
    "edges": [[0, 1, "builds_in"], [1, 3, "builds_in"], [2, 3, "depends_on"], [1, 3, "depends_on"]]
  }
}"#,
    );
    assert_eq!(pipeline.name, "project");
    assert_eq!(pipeline.timeout, Some(Duration::from_secs(3600)));
    let [deps, build, lint, test] = &pipeline.steps[..] else {
        panic!("four steps")
    };
    assert_eq!(deps.name, "deps");
    assert_eq!(deps.run, "apt-get update");
    assert_eq!(deps.base, StepBase::Image("ubuntu:24.04".to_owned()));
    assert_eq!(deps.timeout, Some(Duration::from_secs(60)));
    assert_eq!(deps.network, NetworkPolicy::Outbound);
    assert_eq!(deps.env["CI"], "true");
    assert_eq!(deps.env["MODE"], "slow", "the step's own wins");
    assert_eq!(deps.cache.mode, CacheMode::Auto);
    assert_eq!(build.base, StepBase::Step(StepId(0)));
    assert_eq!(build.cache.mode, CacheMode::Off);
    assert_eq!(lint.base, StepBase::Image("alpine".to_owned()));
    assert_eq!(test.base, StepBase::Step(StepId(1)));
    assert_eq!(test.needs, [StepId(2)], "what it forks from is no need");
    assert!(matches!(&test.cache.mode, CacheMode::Key(key) if key.starts_with("hm-ir-")));
    assert_eq!(
        lint.cache.mode,
        CacheMode::Off,
        "nothing is said of its cache"
    );
    assert_eq!(build.working_dir, "/workspace");
    assert_eq!(build.injects[0].target, "/workspace");
}

/// The author's key does not stand for the command, nor for the image and the environment.
#[test]
fn a_key_covers_what_the_step_does() {
    let key = |step: &str| {
        let text = format!(
            r#"{{ "version": "0", "graph": {{ "nodes": [{{ "step": {step}, "env": {{}} }}],
               "node_holes": [], "edge_property": "directed", "edges": [] }} }}"#
        );
        graph(&text).steps[0].cache.mode.clone()
    };
    let cache = r#""cache": { "policy": "forever", "key": "k" }"#;
    let keys = [
        format!(r#"{{ "key": "a", "cmd": "x", {cache} }}"#),
        format!(r#"{{ "key": "a", "cmd": "y", {cache} }}"#),
        format!(r#"{{ "key": "a", "cmd": "x", "image": "i", {cache} }}"#),
        format!(r#"{{ "key": "a", "cmd": "x", "env": {{ "A": "1" }}, {cache} }}"#),
        r#"{ "key": "a", "cmd": "x", "cache": { "policy": "forever", "key": "l" } }"#.to_owned(),
    ]
    .map(|step| format!("{:?}", key(&step)));
    let different: std::collections::BTreeSet<&String> = keys.iter().collect();
    assert_eq!(different.len(), keys.len(), "{keys:?}");
    let again = format!(r#"{{ "key": "b", "cmd": "x", {cache} }}"#);
    assert_eq!(
        format!("{:?}", key(&again)),
        keys[0],
        "the step's name is no part of it"
    );
}

#[test]
fn holes_where_nodes_and_edges_were() {
    // Nodes 0 and 2 are gone; 1, 3 and 4 are left.
    let pipeline = graph(
        r#"{ "version": "0", "graph": {
  "nodes": [
    { "step": { "key": "one", "cmd": "x" }, "env": {} },
    { "step": { "key": "three", "cmd": "x" }, "env": {} },
    { "step": { "key": "four", "cmd": "x" }, "env": {} }
  ],
  "node_holes": [0, 2],
  "edge_property": "directed",
  "edges": [null, [1, 4, "builds_in"], null, [3, 4, "depends_on"]]
} }"#,
    );
    assert_eq!(pipeline.steps[0].base, StepBase::Image("host".to_owned()));
    assert_eq!(pipeline.steps[2].base, StepBase::Step(StepId(0)));
    assert_eq!(pipeline.steps[2].needs, [StepId(1)]);
}
