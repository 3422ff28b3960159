//! Keys: unknown, missing, twice, of another kind.

use hm_pipeline::parse::Format;

use super::check;

#[test]
fn an_unknown_key_at_every_level() {
    check(
        Format::Toml,
        r##"
[pipeline]
imgae = "debian:bookworm"

[steps.build]
cmd = "make"
run = "make"
inject = { source = ".", tagret = "/src" }
cache = { kee = "x" }
outputs = [{ path = "app", too = "dist" }]
caches = { cargo = { target = "/c", sharring = "shared" } }
secrets = { token = { env = "TOKEN", varable = "TOKEN" } }
zzz = 1

[steps.build.services.db]
run = "postgres"
imagee = "postgres"
ready = { prot = 5432, port = 5432 }

[defaults]
x = 1
"##,
        r##"
hmvm.toml:2:1: unknown key `imgae`
  |
2 | imgae = "debian:bookworm"
  | ^^^^^
hint: did you mean `image`?

hmvm.toml:5:1: unknown key `cmd`
  |
5 | cmd = "make"
  | ^^^
hint: did you mean `run`?

hmvm.toml:7:26: unknown key `tagret`
  |
7 | inject = { source = ".", tagret = "/src" }
  |                          ^^^^^^
hint: did you mean `target`?

hmvm.toml:8:11: unknown key `kee`
  |
8 | cache = { kee = "x" }
  |           ^^^
hint: did you mean `key`?

hmvm.toml:9:28: unknown key `too`
  |
9 | outputs = [{ path = "app", too = "dist" }]
  |                            ^^^
hint: did you mean `to`?

hmvm.toml:10:37: unknown key `sharring`
   |
10 | caches = { cargo = { target = "/c", sharring = "shared" } }
   |                                     ^^^^^^^^
hint: did you mean `sharing`?

hmvm.toml:11:38: unknown key `varable`
   |
11 | secrets = { token = { env = "TOKEN", varable = "TOKEN" } }
   |                                      ^^^^^^^
hint: did you mean `variable`?

hmvm.toml:12:1: unknown key `zzz`
   |
12 | zzz = 1
   | ^^^
hint: keys here are run, from, image, needs, inject, workdir, env, shell, user, timeout, retries, cpus, memory, disk, pids, network, cache, if, matrix, outputs, caches, secrets, allow_failure, services

hmvm.toml:16:1: unknown key `imagee`
   |
16 | imagee = "postgres"
   | ^^^^^^
hint: did you mean `image`?

hmvm.toml:17:11: unknown key `prot`
   |
17 | ready = { prot = 5432, port = 5432 }
   |           ^^^^
hint: did you mean `port`?

hmvm.toml:19:2: unknown key `defaults`
   |
19 | [defaults]
   |  ^^^^^^^^
hint: keys here are pipeline, steps
"##,
    );
}

#[test]
fn wrong_kinds() {
    check(
        Format::Toml,
        r##"
[pipeline]
name = 1
env = ["A=1"]
parallelism = "4"

[steps.build]
run = ["make"]
needs = 3
allow_failure = "true"
cpus = 1.5
env = { DATE = 1979-05-27, LIST = [] }
if = true
outputs = [1]

[steps]
test = "make check"
"##,
        r##"
hmvm.toml:2:8: expected a string, found an integer
  |
2 | name = 1
  |        ^
hint: put it in quotes: "1"

hmvm.toml:3:7: expected a table of variables, found a list
  |
3 | env = ["A=1"]
  |       ^^^^^^^
hint: write a table, as { KEY = VALUE }

hmvm.toml:4:15: expected an integer, found a string
  |
4 | parallelism = "4"
  |               ^^^
hint: write 4 without quotes

hmvm.toml:7:7: expected a string, found a list
  |
7 | run = ["make"]
  |       ^^^^^^^^
hint: write one string; one of many lines stands in """ … """ in TOML

hmvm.toml:8:9: expected a string, found an integer
  |
8 | needs = 3
  |         ^
hint: put it in quotes: "3"

hmvm.toml:9:17: expected a boolean, found a string
  |
9 | allow_failure = "true"
  |                 ^^^^^^
hint: write true without quotes

hmvm.toml:10:8: `1.5` is no whole number
   |
10 | cpus = 1.5
   |        ^^^
hint: write a whole number from 1 to 4096

hmvm.toml:11:16: expected a string, found a date
   |
11 | env = { DATE = 1979-05-27, LIST = [] }
   |                ^^^^^^^^^^
hint: put it in quotes: "1979-05-27"

hmvm.toml:11:35: expected a string, found a list
   |
11 | env = { DATE = 1979-05-27, LIST = [] }
   |                                   ^^
hint: write one string; one of many lines stands in """ … """ in TOML

hmvm.toml:12:6: expected a string, found a boolean
   |
12 | if = true
   |      ^^^^
hint: put it in quotes: "true"

hmvm.toml:13:12: expected a string or a table, found an integer
   |
13 | outputs = [1]
   |            ^
hint: put it in quotes: "1"

hmvm.toml:16:8: expected a table, found a string
   |
16 | test = "make check"
   |        ^^^^^^^^^^^^
hint: write a table, as { KEY = VALUE }
"##,
    );
}

#[test]
fn a_missing_run() {
    check(
        Format::Toml,
        r##"
[steps.build]
from = "biuld"
"##,
        r##"
hmvm.toml:1:8: `run` is missing
  |
1 | [steps.build]
  |        ^^^^^
hint: add `run` to this table

hmvm.toml:2:8: unknown step `biuld`
  |
2 | from = "biuld"
  |        ^^^^^^^
hint: did you mean `build`?
"##,
    );
}

#[test]
fn duplicates_in_toml() {
    check(
        Format::Toml,
        r##"
[steps.build]
run = "make"
run = "make all"

[steps.build]
run = "make"
"##,
        r##"
hmvm.toml:3:1: duplicate key `run`
  |
3 | run = "make all"
  | ^^^
hint: keep one of them; another one is on line 2

hmvm.toml:5:8: duplicate key `build`
  |
5 | [steps.build]
  |        ^^^^^
hint: keep one of them; another one is on line 1

hmvm.toml:6:1: duplicate key `run`
  |
6 | run = "make"
  | ^^^
hint: keep one of them; another one is on line 2
"##,
    );
}

#[test]
fn duplicates_in_json() {
    check(
        Format::Json,
        r##"
{
  "steps": {
    "build": { "run": "make", "run": "make all" },
    "build": { "run": "make" }
  }
}
"##,
        r##"
hmvm.json:3:31: duplicate key `run`
  |
3 |     "build": { "run": "make", "run": "make all" },
  |                               ^^^^^
hint: keep one of them; the first one is on line 3

hmvm.json:4:5: duplicate key `build`
  |
4 |     "build": { "run": "make" }
  |     ^^^^^^^
hint: keep one of them; the first one is on line 3
"##,
    );
}
