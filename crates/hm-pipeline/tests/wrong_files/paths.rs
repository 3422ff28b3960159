//! Paths, and what goes with them.

use hm_pipeline::parse::Format;

use super::check;

#[test]
fn guest_paths() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "x"
workdir = "src"
inject = { source = ".", target = "./app" }
caches = { c = "/c/../d", e = "cache", root = "/" }
secrets = { t = { env = "T", target = "token" } }
"##,
        r##"
hmvm.toml:3:11: `src` is no absolute guest path
  |
3 | workdir = "src"
  |           ^^^^^
hint: write "/src"

hmvm.toml:4:35: `./app` is no absolute guest path
  |
4 | inject = { source = ".", target = "./app" }
  |                                   ^^^^^^^
hint: write "/app"

hmvm.toml:5:16: `/c/../d` goes up
  |
5 | caches = { c = "/c/../d", e = "cache", root = "/" }
  |                ^^^^^^^^^
hint: write the path without `..`

hmvm.toml:5:31: `cache` is no absolute guest path
  |
5 | caches = { c = "/c/../d", e = "cache", root = "/" }
  |                               ^^^^^^^
hint: write "/cache"

hmvm.toml:5:40: the cache `root` would hide the whole guest
  |
5 | caches = { c = "/c/../d", e = "cache", root = "/" }
  |                                        ^^^^
hint: choose a directory below /

hmvm.toml:6:39: `token` is no absolute guest path
  |
6 | secrets = { t = { env = "T", target = "token" } }
  |                                       ^^^^^^^
hint: write "/token"
"##,
    );
}

#[test]
fn outputs_that_leave_the_directory() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "x"
outputs = [
  "../secret",
  { path = "app", to = "../dist" },
  { path = "app", to = "/etc" },
  { path = "a/../../b" },
]
cache = { inputs = ["../x"] }
"##,
        r##"
hmvm.toml:4:3: `../secret` leaves the directory
  |
4 |   "../secret",
  |   ^^^^^^^^^^^
hint: write a pattern without `..`

hmvm.toml:5:24: `../dist` leaves the pipeline's directory
  |
5 |   { path = "app", to = "../dist" },
  |                        ^^^^^^^^^
hint: write a path below it, without `..`

hmvm.toml:6:24: `/etc` is outside the pipeline's directory
  |
6 |   { path = "app", to = "/etc" },
  |                        ^^^^^^
hint: write a path below that directory, as "dist"

hmvm.toml:7:12: `a/../../b` leaves the directory
  |
7 |   { path = "a/../../b" },
  |            ^^^^^^^^^^^
hint: write a pattern without `..`

hmvm.toml:9:21: `../x` leaves the directory
  |
9 | cache = { inputs = ["../x"] }
  |                     ^^^^^^
hint: write a pattern without `..`
"##,
    );
}

#[test]
fn two_of_one_target() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "x"
inject = [".", { source = "lib", target = "/src/" }]
caches = { c = "/c", d = "/c/." }
secrets = { s = { env = "S", target = "/c" } }
"##,
        r##"
hmvm.toml:3:43: two injects have the target `/src`
  |
3 | inject = [".", { source = "lib", target = "/src/" }]
  |                                           ^^^^^^^
hint: give one of them another `target`

hmvm.toml:4:22: the cache `c` has the target `/c` already
  |
4 | caches = { c = "/c", d = "/c/." }
  |                      ^
hint: give one of them another target

hmvm.toml:5:13: the cache `d` has the target `/c` already
  |
5 | secrets = { s = { env = "S", target = "/c" } }
  |             ^
hint: give one of them another target
"##,
    );
}

#[test]
fn mounts_over_what_is_injected() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "x"
inject = [".", { source = "lib", target = "/opt/lib" }]
caches = { src = "/src", opt = "/opt", below = "/src/target", beside = "/opt/libs" }
"##,
        r##"
hmvm.toml:4:12: the cache `src` would hide what is injected at `/src`
  |
4 | caches = { src = "/src", opt = "/opt", below = "/src/target", beside = "/opt/libs" }
  |            ^^^
hint: give one of them another target

hmvm.toml:4:26: the cache `opt` would hide what is injected at `/opt/lib`
  |
4 | caches = { src = "/src", opt = "/opt", below = "/src/target", beside = "/opt/libs" }
  |                          ^^^
hint: give one of them another target
"##,
    );
}

#[test]
fn secrets() {
    check(
        Format::Toml,
        r##"
[pipeline]
env = { TOKEN = "x" }

[steps.a]
run = "x"
secrets = { none = {}, both = { env = "A", file = "a" }, clash = { env = "T", variable = "TOKEN" }, forms = { env = "T", target = "/t", variable = "T" }, bad = { env = "A=B" }, word = "TOKEN" }

[steps.b]
run = "x"
secrets = ["A", "A"]

[steps.c]
run = "x"
secrets = { a = { env = "A", variable = "V" }, b = { env = "B", variable = "V" } }
"##,
        r##"
hmvm.toml:6:13: the secret `none` has no source
  |
6 | secrets = { none = {}, both = { env = "A", file = "a" }, clash = { env = "T", variable = "TOKEN" },
  |             ^^^^
hint: add env = "VARIABLE" or file = "PATH"

hmvm.toml:6:51: `env` and `file` exclude each other
  |
6 | th = { env = "A", file = "a" }, clash = { env = "T", variable = "TOKEN" }, forms = { env = "T", targ
  |                          ^^^
hint: remove one of them: a secret has one source

hmvm.toml:6:58: the variable `TOKEN` of this secret stands in `env` too
  |
6 | env = "A", file = "a" }, clash = { env = "T", variable = "TOKEN" }, forms = { env = "T", target = "/
  |                          ^^^^^
hint: remove it from `env`, or give the secret another `variable`

hmvm.toml:6:148: `target` and `variable` exclude each other
  |
6 | EN" }, forms = { env = "T", target = "/t", variable = "T" }, bad = { env = "A=B" }, word = "TOKEN" }
  |                                                       ^^^
hint: remove one of them: the step gets a file or a variable

hmvm.toml:6:169: the name of a variable cannot have '='
  |
6 | EN" }, forms = { env = "T", target = "/t", variable = "T" }, bad = { env = "A=B" }, word = "TOKEN" }
  |                                                                            ^^^^^
hint: use letters, digits and `_`

hmvm.toml:6:185: expected a table, found a string
  |
6 | EN" }, forms = { env = "T", target = "/t", variable = "T" }, bad = { env = "A=B" }, word = "TOKEN" }
  |                                                                                            ^^^^^^^
hint: write a table, as { KEY = VALUE }

hmvm.toml:10:17: duplicate secret `A`
   |
10 | secrets = ["A", "A"]
   |                 ^^^
hint: remove one of them

hmvm.toml:14:48: the secret `a` has the variable `V` already
   |
14 | secrets = { a = { env = "A", variable = "V" }, b = { env = "B", variable = "V" } }
   |                                                ^
hint: give one of them another `variable`
"##,
    );
}

#[test]
fn services() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "x"

[steps.a.services.db]
run = "postgres"
image = "postgres"
from = "a"
ready = {}

[steps.a.services.web]
ready = { port = 80, line = "listening" }
"##,
        r##"
hmvm.toml:4:19: `ready` of `db` needs one of port, run and line
  |
4 | [steps.a.services.db]
  |                   ^^
hint: write for example: ready = { port = 5432 }

hmvm.toml:6:9: `image` and `from` exclude each other
  |
6 | image = "postgres"
  |         ^^^^^^^^^^
hint: remove one of them: a step starts either from an image or from another step

hmvm.toml:7:8: cycle: a → a
  |
7 | from = "a"
  |        ^^^
hint: remove one of these dependencies

hmvm.toml:10:19: `run` is missing
   |
10 | [steps.a.services.web]
   |                   ^^^
hint: add `run` to this table

hmvm.toml:10:19: `ready` of `web` needs one of port, run and line
   |
10 | [steps.a.services.web]
   |                   ^^^
hint: write for example: ready = { port = 5432 }
"##,
    );
}
