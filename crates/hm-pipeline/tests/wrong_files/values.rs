//! Values that mean nothing.

use hm_pipeline::parse::Format;

use super::check;

#[test]
fn times_and_sizes() {
    check(
        Format::Toml,
        r##"
[pipeline]
timeout = 90

[steps.a]
run = "x"
timeout = "5"
memory = "2GB"
disk = "1500MiB"

[steps.b]
run = "x"
timeout = "5 parsecs"
memory = "lots"
disk = "0GiB"

[steps.c]
run = "x"
timeout = "0s"
memory = 512
disk = "99TiB"
cache = { ttl = "2w" }
"##,
        r##"
hmvm.toml:2:11: `90` has no unit
  |
2 | timeout = 90
  |           ^^
hint: write "90s" for seconds or "90m" for minutes

hmvm.toml:6:11: `5` has no unit
  |
6 | timeout = "5"
  |           ^^^
hint: write "5s" for seconds or "5m" for minutes

hmvm.toml:7:10: `GB` is read as 1000s by some and as 1024s by others
  |
7 | memory = "2GB"
  |          ^^^^^
hint: write "2GiB" for powers of 1024

hmvm.toml:8:8: `1500MiB` is no whole number of GiB
  |
8 | disk = "1500MiB"
  |        ^^^^^^^^^
hint: write "2GiB"

hmvm.toml:12:11: unknown unit `parsecs`
   |
12 | timeout = "5 parsecs"
   |           ^^^^^^^^^^^
hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d

hmvm.toml:13:10: `lots` is no size
   |
13 | memory = "lots"
   |          ^^^^^^
hint: write a number and a unit: 512MiB, 1.5GiB or 2GiB

hmvm.toml:14:8: `0GiB` is no whole number of GiB
   |
14 | disk = "0GiB"
   |        ^^^^^^
hint: write "1GiB"

hmvm.toml:18:11: must be more than zero
   |
18 | timeout = "0s"
   |           ^^^^
hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d

hmvm.toml:19:10: `512` has no unit
   |
19 | memory = 512
   |          ^^^
hint: write "512MiB" or "512GiB"

hmvm.toml:20:8: `99TiB` is too large
   |
20 | disk = "99TiB"
   |        ^^^^^^^
hint: write "15TiB" or less, or leave it out

hmvm.toml:21:17: unknown unit `w`
   |
21 | cache = { ttl = "2w" }
   |                 ^^^^
hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d
"##,
    );
}

#[test]
fn counts() {
    check(
        Format::Toml,
        r##"
[pipeline]
parallelism = 0

[steps.a]
run = "x"
retries = -1
cpus = 0
pids = 99999999

[steps.a.services.db]
run = "postgres"
ready = { port = 65536 }
"##,
        r##"
hmvm.toml:2:15: 0 is out of range
  |
2 | parallelism = 0
  |               ^
hint: write a whole number from 1 to 10000

hmvm.toml:6:11: -1 is out of range
  |
6 | retries = -1
  |           ^^
hint: write a whole number from 0 to 100

hmvm.toml:7:8: 0 is out of range
  |
7 | cpus = 0
  |        ^
hint: write a whole number from 1 to 4096

hmvm.toml:8:8: 99999999 is out of range
  |
8 | pids = 99999999
  |        ^^^^^^^^
hint: write a whole number from 1 to 4194304

hmvm.toml:12:18: 65536 is out of range
   |
12 | ready = { port = 65536 }
   |                  ^^^^^
hint: write a whole number from 1 to 65535
"##,
    );
}

#[test]
fn names() {
    check(
        Format::Toml,
        r##"
[steps."build all"]
run = "x"

[steps.-x]
run = "x"
env = { "A=B" = "x" }
caches = { "../up" = "/c" }
secrets = ["A B"]

[steps."".services.My_DB]
run = "x"

[steps.z.services.localhost]
run = "x"
"##,
        r##"
hmvm.toml:1:8: the name of a step cannot have ' '
  |
1 | [steps."build all"]
  |        ^^^^^^^^^^^
hint: use letters, digits, `_`, `-` and `.`

hmvm.toml:4:8: the name of a step cannot begin with `-`
  |
4 | [steps.-x]
  |        ^^
hint: begin it with a letter, a digit or `_`

hmvm.toml:6:9: the name of a variable cannot have '='
  |
6 | env = { "A=B" = "x" }
  |         ^^^^^
hint: use letters, digits and `_`

hmvm.toml:7:12: the name of a cache cannot have '/'
  |
7 | caches = { "../up" = "/c" }
  |            ^^^^^^^
hint: use letters, digits, `_`, `-` and `.`

hmvm.toml:8:12: the name of a secret cannot have ' '
  |
8 | secrets = ["A B"]
  |            ^^^^^
hint: use letters, digits, `_`, `-` and `.`

hmvm.toml:10:8: the name of a step is empty
   |
10 | [steps."".services.My_DB]
   |        ^^
hint: give it a name

hmvm.toml:10:8: `run` is missing
   |
10 | [steps."".services.My_DB]
   |        ^^
hint: add `run` to this table

hmvm.toml:10:20: `My_DB` is no name for a service
   |
10 | [steps."".services.My_DB]
   |                    ^^^^^
hint: a service's name is its host name: use small letters, digits and `-`

hmvm.toml:13:8: `run` is missing
   |
13 | [steps.z.services.localhost]
   |        ^
hint: add `run` to this table

hmvm.toml:13:19: `localhost` is the step itself
   |
13 | [steps.z.services.localhost]
   |                   ^^^^^^^^^
hint: a service's name is its host name: use small letters, digits and `-`
"##,
    );
}

#[test]
fn choices() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "x"
network = "outbond"
cache = "build-v1"

[steps.b]
run = "x"
cache = "aut"
caches = { c = { target = "/c", sharing = "exclusive" } }

[steps.c]
run = "x"
cache = { mode = "off", key = "k" }

[steps.d]
run = "x"
cache = { key = "k", inputs = ["*.rs"] }
"##,
        r##"
hmvm.toml:3:11: unknown value `outbond`
  |
3 | network = "outbond"
  |           ^^^^^^^^^
hint: did you mean "outbound"?

hmvm.toml:4:9: unknown value `build-v1`
  |
4 | cache = "build-v1"
  |         ^^^^^^^^^^
hint: write "auto" or "off", or { key = "build-v1" } for a key

hmvm.toml:8:9: unknown value `aut`
  |
8 | cache = "aut"
  |         ^^^^^
hint: did you mean "auto"?

hmvm.toml:9:43: unknown value `exclusive`
  |
9 | caches = { c = { target = "/c", sharing = "exclusive" } }
  |                                           ^^^^^^^^^^^
hint: write one of locked, shared

hmvm.toml:13:31: a step that is not cached has no key
   |
13 | cache = { mode = "off", key = "k" }
   |                               ^^^
hint: remove `key`, or `mode`

hmvm.toml:17:17: `inputs` have no effect with a key of your own
   |
17 | cache = { key = "k", inputs = ["*.rs"] }
   |                 ^^^
hint: remove `key` to have one derived, or put what matters into it
"##,
    );
}

#[test]
fn empty_texts() {
    check(
        Format::Toml,
        r##"
[pipeline]
name = ""
changed_since = "--all"

[steps.a]
run = "  "
image = ""
shell = ""
inject = ""
outputs = [""]
env = { NUL = "\u0000" }
user = "a\nb"
"##,
        r##"
hmvm.toml:2:8: must not be empty
  |
2 | name = ""
  |        ^^
hint: fill it in, or leave the key out

hmvm.toml:3:17: `--all` is no revision
  |
3 | changed_since = "--all"
  |                 ^^^^^^^
hint: write a branch, a tag or a commit, as "origin/main"

hmvm.toml:6:7: must not be empty
  |
6 | run = "  "
  |       ^^^^
hint: fill it in, or leave the key out

hmvm.toml:7:9: must not be empty
  |
7 | image = ""
  |         ^^
hint: fill it in, or leave the key out

hmvm.toml:8:9: must not be empty
  |
8 | shell = ""
  |         ^^
hint: fill it in, or leave the key out

hmvm.toml:9:10: must not be empty
  |
9 | inject = ""
  |          ^^
hint: fill it in, or leave the key out

hmvm.toml:10:12: the pattern is empty
   |
10 | outputs = [""]
   |            ^^
hint: write "*" for everything

hmvm.toml:11:15: contains a NUL character
   |
11 | env = { NUL = "\u0000" }
   |               ^^^^^^^^
hint: remove it

hmvm.toml:12:8: contains a control character
   |
12 | user = "a\nb"
   |        ^^^^^^
hint: write it in one line
"##,
    );
}
