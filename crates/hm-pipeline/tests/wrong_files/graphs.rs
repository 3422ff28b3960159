//! Graphs of hm.

use hm_pipeline::parse::Format;

use super::check;

#[test]
fn keys() {
    check(
        Format::HmIr,
        r##"
{
  "version": "0",
  "graph": {
    "nodes": [
      { "step": { "key": "a", "cmd": "x", "retries": 3 }, "env": {} },
      { "step": { "key": "a b", "cmd": "" } },
      { "step": { "key": "a", "cmd": "x", "runner": "podmam", "runner_args": { "x": 1 } }, "env": {} },
      { "env": {} }
    ],
    "node_holes": [],
    "edge_property": "directed",
    "edges": []
  }
}
"##,
        r##"
graph.json:5:43: unknown key `retries`
  |
5 |       { "step": { "key": "a", "cmd": "x", "retries": 3 }, "env": {} },
  |                                           ^^^^^^^^^
hint: keys here are key, label, cmd, image, env, timeout_seconds, cache, runner, runner_args

graph.json:6:26: the name of a step cannot have ' '
  |
6 |       { "step": { "key": "a b", "cmd": "" } },
  |                          ^^^^^
hint: use letters, digits, `_`, `-` and `.`

graph.json:6:40: must not be empty
  |
6 |       { "step": { "key": "a b", "cmd": "" } },
  |                                        ^^
hint: fill it in, or leave the key out

graph.json:7:26: duplicate step `a`
  |
7 |       { "step": { "key": "a", "cmd": "x", "runner": "podmam", "runner_args": { "x": 1 } }, "env": {}
  |                          ^^^
hint: give each step a `key` of its own

graph.json:7:53: unknown runner `podmam`
  |
7 |    { "step": { "key": "a", "cmd": "x", "runner": "podmam", "runner_args": { "x": 1 } }, "env": {} },
  |                                                  ^^^^^^^^
hint: known are vm, hm-vm, docker, default

graph.json:7:78: `runner_args` are not known here
  |
7 |    { "step": { "key": "a", "cmd": "x", "runner": "podmam", "runner_args": { "x": 1 } }, "env": {} },
  |                                                                           ^^^^^^^^^^
hint: remove them: every step runs in a VM of hmvm

graph.json:8:7: `step` is missing
  |
8 |       { "env": {} }
  |       ^
hint: add `step` to this table
"##,
    );
}

#[test]
fn caches() {
    check(
        Format::HmIr,
        r##"
{
  "version": "0",
  "graph": {
    "nodes": [
      { "step": { "key": "a", "cmd": "x", "cache": { "policy": "ttl" } }, "env": {} },
      { "step": { "key": "b", "cmd": "x", "cache": { "policy": "key" } }, "env": {} },
      { "step": { "key": "c", "cmd": "x", "cache": { "policy": "none", "key": "k" } }, "env": {} },
      { "step": { "key": "d", "cmd": "x", "cache": { "policy": "on_chang" } }, "env": {} }
    ],
    "node_holes": [],
    "edge_property": "directed",
    "edges": []
  }
}
"##,
        r##"
graph.json:5:64: the policy `ttl` needs a key
  |
5 |       { "step": { "key": "a", "cmd": "x", "cache": { "policy": "ttl" } }, "env": {} },
  |                                                                ^^^^^
hint: add `key`, or choose another policy

graph.json:6:64: the policy `key` needs a key
  |
6 |       { "step": { "key": "b", "cmd": "x", "cache": { "policy": "key" } }, "env": {} },
  |                                                                ^^^^^
hint: add `key`, or choose another policy

graph.json:7:79: a step that is not cached has no key
  |
7 |       { "step": { "key": "c", "cmd": "x", "cache": { "policy": "none", "key": "k" } }, "env": {} },
  |                                                                               ^^^
hint: remove `key`, or choose another policy

graph.json:8:64: unknown cache policy `on_chang`
  |
8 |       { "step": { "key": "d", "cmd": "x", "cache": { "policy": "on_chang" } }, "env": {} }
  |                                                                ^^^^^^^^^^
hint: did you mean "on_change"?
"##,
    );
}

#[test]
fn edges() {
    check(
        Format::HmIr,
        r##"
{
  "version": "0",
  "graph": {
    "nodes": [
      { "step": { "key": "a", "cmd": "x" }, "env": {} },
      { "step": { "key": "b", "cmd": "x", "image": "i" }, "env": {} },
      { "step": { "key": "c", "cmd": "x" }, "env": {} }
    ],
    "node_holes": [],
    "edge_property": "directed",
    "edges": [
      [0, 1, "builds_in"],
      [2, 1, "builds_in"],
      [0, 7, "depends_on"],
      [0, 2, "build_in"],
      [0, 2],
      null,
      [0, -1, "depends_on"]
    ]
  }
}
"##,
        r##"
graph.json:6:52: the step forks from another one, whose image is `host`
  |
6 |       { "step": { "key": "b", "cmd": "x", "image": "i" }, "env": {} },
  |                                                    ^^^
hint: remove `image`, or the edge "builds_in"

graph.json:13:7: a step cannot fork from two others
   |
13 |       [2, 1, "builds_in"],
   |       ^^^^^^^^^^^^^^^^^^^
hint: keep one "builds_in", and make the other "depends_on"

graph.json:14:7: the edge leads to node 7, which is not there
   |
14 |       [0, 7, "depends_on"],
   |       ^^^^^^^^^^^^^^^^^^^^
hint: remove the edge, or add the node

graph.json:15:14: unknown edge `build_in`
   |
15 |       [0, 2, "build_in"],
   |              ^^^^^^^^^^
hint: did you mean "builds_in"?

graph.json:16:7: this is no edge
   |
16 |       [0, 2],
   |       ^^^^^^
hint: write [FROM, TO, "builds_in"] or [FROM, TO, "depends_on"]

graph.json:18:11: -1 is out of range
   |
18 |       [0, -1, "depends_on"]
   |           ^^
hint: write a whole number from 0 to 4294967295
"##,
    );
}

#[test]
fn a_cycle() {
    check(
        Format::HmIr,
        r##"
{
  "version": "0",
  "graph": {
    "nodes": [
      { "step": { "key": "a", "cmd": "x" }, "env": {} },
      { "step": { "key": "b", "cmd": "x" }, "env": {} }
    ],
    "node_holes": [],
    "edge_property": "directed",
    "edges": [
      [0, 1, "builds_in"],
      [1, 0, "depends_on"]
    ]
  }
}
"##,
        r##"
graph.json:12:7: cycle: a → b → a
   |
12 |       [1, 0, "depends_on"]
   |       ^^^^^^^^^^^^^^^^^^^^
hint: remove one of these dependencies
"##,
    );
}

#[test]
fn another_version() {
    check(
        Format::HmIr,
        r##"
{ "version": "1", "graph": { "nodes": [], "edge_property": "undirected", "edges": [] } }
"##,
        r##"
graph.json:1:14: unknown version `1` of the graph format
  |
1 | { "version": "1", "graph": { "nodes": [], "edge_property": "undirected", "edges": [] } }
  |              ^^^
hint: only version "0" is known
"##,
    );
}

#[test]
fn undirected() {
    check(
        Format::HmIr,
        r##"
{ "version": "0", "graph": { "nodes": [], "node_holes": [3], "edge_property": "undirected", "edges": [] } }
"##,
        r##"
graph.json:1:79: the graph is not directed
  |
1 | ion": "0", "graph": { "nodes": [], "node_holes": [3], "edge_property": "undirected", "edges": [] } }
  |                                                                        ^^^^^^^^^^^^
hint: write "directed"

graph.json:1:79: the graph has no steps
  |
1 | ion": "0", "graph": { "nodes": [], "node_holes": [3], "edge_property": "undirected", "edges": [] } }
  |                                                                        ^^^^^^^^^^^^
hint: add a node
"##,
    );
}

#[test]
fn something_else() {
    check(
        Format::HmIr,
        r##"
{ "steps": {} }
"##,
        r##"
graph.json:1:1: `version` is missing
  |
1 | { "steps": {} }
  | ^
hint: add `version` to this table

graph.json:1:1: `graph` is missing
  |
1 | { "steps": {} }
  | ^
hint: add `graph` to this table

graph.json:1:3: unknown key `steps`
  |
1 | { "steps": {} }
  |   ^^^^^^^
hint: keys here are version, default_image, timeout_seconds, graph
"##,
    );
}
