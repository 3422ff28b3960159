//! What steps say of other steps, and conditions.

use hm_pipeline::parse::Format;

use super::check;

#[test]
fn misspelt_steps() {
    check(
        Format::Toml,
        r##"
[steps.build]
run = "make"

[steps.test]
from = "biuld"
needs = ["lnit", "build", "build", "whatever"]
run = "make check"

[steps.lint]
run = "make lint"

[steps.web]
run = "x"
services = { db = { run = "x", from = "bild" } }
"##,
        r##"
hmvm.toml:5:8: unknown step `biuld`
  |
5 | from = "biuld"
  |        ^^^^^^^
hint: did you mean `build`?

hmvm.toml:6:10: unknown step `lnit`
  |
6 | needs = ["lnit", "build", "build", "whatever"]
  |          ^^^^^^
hint: did you mean `lint`?

hmvm.toml:6:27: `build` is named twice
  |
6 | needs = ["lnit", "build", "build", "whatever"]
  |                           ^^^^^^^
hint: remove one of them

hmvm.toml:6:36: unknown step `whatever`
  |
6 | needs = ["lnit", "build", "build", "whatever"]
  |                                    ^^^^^^^^^^
hint: steps are build, test, lint, web

hmvm.toml:14:39: unknown step `bild`
   |
14 | services = { db = { run = "x", from = "bild" } }
   |                                       ^^^^^^
hint: did you mean `build`?
"##,
    );
}

#[test]
fn from_and_image() {
    check(
        Format::Toml,
        r##"
[steps.build]
run = "make"

[steps.test]
from = "build"
image = "debian"
run = "make check"
"##,
        r##"
hmvm.toml:6:9: `image` and `from` exclude each other
  |
6 | image = "debian"
  |         ^^^^^^^^
hint: remove one of them: a step starts either from an image or from another step
"##,
    );
}

#[test]
fn a_cycle() {
    check(
        Format::Toml,
        r##"
[steps.a]
from = "c"
run = "x"

[steps.b]
needs = ["a"]
run = "x"

[steps.c]
run = "x"
services = { db = { run = "x", from = "b" } }

[steps.self]
needs = "self"
run = "x"
"##,
        r##"
hmvm.toml:2:8: cycle: a → c → b → a
  |
2 | from = "c"
  |        ^^^
hint: remove one of these dependencies

hmvm.toml:14:9: cycle: self → self
   |
14 | needs = "self"
   |         ^^^^^^
hint: remove one of these dependencies
"##,
    );
}

#[test]
fn conditions() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "x"
if = "env.CI &&"

[steps.b]
run = "x"
if = "env.BRANCH = 'main'"

[steps.c]
run = "x"
if = 'env.A == "é" || branch == "main"'

[steps.d]
run = "x"
if = "changed(\"../x\")"

[steps.e]
run = "x"
if = "changed()"

[steps.f]
run = "x"
if = ""
"##,
        r##"
hmvm.toml:3:16: expected env.NAME, changed(…), true, false, `!` or `(`, found the end
  |
3 | if = "env.CI &&"
  |                ^
hint: write for example: env.CI && env.BRANCH == "main", or changed("src/**")

hmvm.toml:7:18: `=` is no comparison: write `==`
  |
7 | if = "env.BRANCH = 'main'"
  |                  ^
hint: write for example: env.CI && env.BRANCH == "main", or changed("src/**")

hmvm.toml:11:23: expected env.NAME, changed(…), true, false, `!` or `(`, found `branch`
   |
11 | if = 'env.A == "é" || branch == "main"'
   |                       ^^^^^^
hint: write for example: env.CI && env.BRANCH == "main", or changed("src/**")

hmvm.toml:15:6: the pattern leaves the pipeline's directory
   |
15 | if = "changed(\"../x\")"
   |      ^^^^^^^^^^^^^^^^^^^
hint: write for example: env.CI && env.BRANCH == "main", or changed("src/**")

hmvm.toml:19:15: expected a text in quotes, found `)`
   |
19 | if = "changed()"
   |               ^
hint: write for example: env.CI && env.BRANCH == "main", or changed("src/**")

hmvm.toml:23:7: expected env.NAME, changed(…), true, false, `!` or `(`, found the end
   |
23 | if = ""
   |       ^
hint: write for example: env.CI && env.BRANCH == "main", or changed("src/**")
"##,
    );
}
