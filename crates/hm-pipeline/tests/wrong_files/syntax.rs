//! Files that cannot be read at all, or that are something else.

use hm_pipeline::parse::Format;

use super::check;

#[test]
fn toml() {
    check(
        Format::Toml,
        r##"
[steps.build]
run = "make
timeout = 5m

[steps.test
run = "x"
"##,
        r##"
hmvm.toml:2:12: invalid basic string, expected `"`
  |
2 | run = "make
  |            ^
hint: close the string; one of many lines stands in """ … """

hmvm.toml:3:11: string values must be quoted, expected literal string
  |
3 | timeout = 5m
  |           ^^
hint: put it in quotes: "5m"

hmvm.toml:5:12: unclosed table, expected `]`
  |
5 | [steps.test
  |            ^
hint: close it
"##,
    );
}

#[test]
fn json() {
    check(
        Format::Json,
        r##"
{ "steps": { "build": { "run": "make" }, } }
"##,
        r##"
hmvm.json:1:40: trailing commas are not allowed
  |
1 | { "steps": { "build": { "run": "make" }, } }
  |                                        ^
hint: remove the comma
"##,
    );
}

#[test]
fn json_null() {
    check(
        Format::Json,
        r##"
{ "steps": { "build": { "run": "make", "from": null } } }
"##,
        r##"
hmvm.json:1:48: expected a string, found null
  |
1 | { "steps": { "build": { "run": "make", "from": null } } }
  |                                                ^^^^
hint: leave the key out
"##,
    );
}

#[test]
fn an_empty_json_file() {
    check(
        Format::Json,
        r##"
"##,
        r##"
hmvm.json:1:1: the file is empty
hint: a pipeline has steps, as { "steps": { "build": { "run": "make" } } }
"##,
    );
}

#[test]
fn json_that_ends_too_early() {
    check(
        Format::Json,
        r##"
{ "steps": { "build": { "run": "make"
"##,
        r##"
hmvm.json:1:23: unterminated object
  |
1 | { "steps": { "build": { "run": "make"
  |                       ^^^^^^^^^^^^^^^
hint: close it with `}`
"##,
    );
}

#[test]
fn a_file_of_another_kind() {
    check(
        Format::Toml,
        r##"
[package]
name = "app"
version = "0.1.0"
"##,
        r##"
hmvm.toml:1:1: no steps: this is no pipeline
  |
1 | [package]
  | ^
hint: a pipeline has steps, as [steps.build] with run = "make"
"##,
    );
}

#[test]
fn a_list() {
    check(
        Format::Json,
        r##"
[1]
"##,
        r##"
hmvm.json:1:1: this is a list, and no pipeline
  |
1 | [1]
  | ^
hint: a pipeline has steps, as [steps.build] with run = "make"
"##,
    );
}

#[test]
fn an_empty_file() {
    check(
        Format::Toml,
        r##"
"##,
        r##"
hmvm.toml:1:1: no steps: this is no pipeline
hint: a pipeline has steps, as [steps.build] with run = "make"
"##,
    );
}

#[test]
fn no_steps() {
    check(
        Format::Toml,
        r##"
[steps]
"##,
        r##"
hmvm.toml:1:2: the pipeline has no steps
  |
1 | [steps]
  |  ^^^^^
hint: a pipeline has steps, as [steps.build] with run = "make"
"##,
    );
}

#[test]
fn a_misspelt_steps() {
    check(
        Format::Toml,
        r##"
[step.build]
run = "make"
"##,
        r##"
hmvm.toml:1:2: unknown key `step`
  |
1 | [step.build]
  |  ^^^^
hint: did you mean `steps`?
"##,
    );
}

#[test]
fn a_graph_of_hm() {
    check(
        Format::Json,
        r##"
{ "version": "0", "graph": {} }
"##,
        r##"
hmvm.json:1:1: this is a graph of hm, and no pipeline file
  |
1 | { "version": "0", "graph": {} }
  | ^
hint: read it with --format hm-ir
"##,
    );
}
