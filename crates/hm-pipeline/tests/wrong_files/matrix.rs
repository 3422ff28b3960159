//! Matrices.

use hm_pipeline::parse::Format;

use super::check;

#[test]
fn axes() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "${matrix.oss} ${matrix.v}"
matrix = { os = ["a", "b"], v = [1, 1], "b d" = [true], e = [], f = "x", g = [[1]], h = ["a,b"] }

[steps.b]
run = "x"
matrix = { os = ["a", "b"], exclude = [{ os = "c" }, { so = "a" }, {}, 1] }

[steps.c]
run = "x"
matrix = { os = ["a"], exclude = [{ os = "a" }] }

[steps.d]
run = "x"
matrix = {}
"##,
        r##"
hmvm.toml:3:37: duplicate value `1`
  |
3 | matrix = { os = ["a", "b"], v = [1, 1], "b d" = [true], e = [], f = "x", g = [[1]], h = ["a,b"] }
  |                                     ^
hint: remove one of them

hmvm.toml:3:41: the name of a matrix axis cannot have ' '
  |
3 | matrix = { os = ["a", "b"], v = [1, 1], "b d" = [true], e = [], f = "x", g = [[1]], h = ["a,b"] }
  |                                         ^^^^^
hint: use letters, digits, `_`, `-` and `.`

hmvm.toml:3:61: the axis has no value
  |
3 | matrix = { os = ["a", "b"], v = [1, 1], "b d" = [true], e = [], f = "x", g = [[1]], h = ["a,b"] }
  |                                                             ^^
hint: give it one, or remove it

hmvm.toml:3:69: expected a list of strings, numbers or booleans, found a string
  |
3 | matrix = { os = ["a", "b"], v = [1, 1], "b d" = [true], e = [], f = "x", g = [[1]], h = ["a,b"] }
  |                                                                     ^^^
hint: write a list, as ["A", "B"]

hmvm.toml:3:79: expected a string, a number or a boolean, found a list
  |
3 | matrix = { os = ["a", "b"], v = [1, 1], "b d" = [true], e = [], f = "x", g = [[1]], h = ["a,b"] }
  |                                                                               ^^^
hint: write a string, a number or a boolean

hmvm.toml:3:90: a value of a matrix cannot have ','
  |
3 | matrix = { os = ["a", "b"], v = [1, 1], "b d" = [true], e = [], f = "x", g = [[1]], h = ["a,b"] }
  |                                                                                          ^^^^^
hint: give the value a name, and look it up in `run`

hmvm.toml:7:47: `os` has no value `c`
  |
7 | matrix = { os = ["a", "b"], exclude = [{ os = "c" }, { so = "a" }, {}, 1] }
  |                                               ^^^
hint: its values are a, b

hmvm.toml:7:56: unknown axis `so`
  |
7 | matrix = { os = ["a", "b"], exclude = [{ os = "c" }, { so = "a" }, {}, 1] }
  |                                                        ^^
hint: did you mean `os`?

hmvm.toml:7:68: leaves out everything
  |
7 | matrix = { os = ["a", "b"], exclude = [{ os = "c" }, { so = "a" }, {}, 1] }
  |                                                                    ^^
hint: name an axis and a value, or remove it

hmvm.toml:7:72: expected a table, found an integer
  |
7 | matrix = { os = ["a", "b"], exclude = [{ os = "c" }, { so = "a" }, {}, 1] }
  |                                                                        ^
hint: write a table, as { KEY = VALUE }

hmvm.toml:9:8: the matrix of `c` leaves no step
  |
9 | [steps.c]
  |        ^
hint: leave fewer combinations out, or remove the step

hmvm.toml:15:1: the matrix has no axis
   |
15 | matrix = {}
   | ^^^^^^
hint: write for example: matrix = { version = ["1", "2"] }
"##,
    );
}

#[test]
fn the_rest_of_a_step_with_a_wrong_matrix() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "x ${matrix.n}"
cpus = "${matrix.n}"
timeout = "${matrix.n}m"
memory = "1GB"
matrix = { n = 1 }

[steps.b]
run = "x"
needs = "a"
"##,
        r##"
hmvm.toml:5:10: `GB` is read as 1000s by some and as 1024s by others
  |
5 | memory = "1GB"
  |          ^^^^^
hint: write "1GiB" for powers of 1024

hmvm.toml:6:16: expected a list of strings, numbers or booleans, found an integer
  |
6 | matrix = { n = 1 }
  |                ^
hint: write a list, as ["A", "B"]
"##,
    );
}

#[test]
fn unknown_axes() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "echo ${matrix.oss} ${matrix.os}"
workdir = "/${matrix.arch"
matrix = { os = ["a", "b"] }

[steps.b]
run = "echo ${matrix.os}"

[pipeline]
env = { OS = "${matrix.os}" }
"##,
        r##"
hmvm.toml:2:13: unknown axis `oss`
  |
2 | run = "echo ${matrix.oss} ${matrix.os}"
  |             ^^^^^^^^^^^^^
hint: did you mean ${matrix.os}?

hmvm.toml:3:11: `${matrix.` without `}`
  |
3 | workdir = "/${matrix.arch"
  |           ^^^^^^^^^^^^^^^^
hint: close it: ${matrix.AXIS}

hmvm.toml:7:13: unknown axis `os`
  |
7 | run = "echo ${matrix.os}"
  |             ^^^^^^^^^^^^
hint: the step has no matrix: add one, as matrix = { version = ["1", "2"] }

hmvm.toml:10:14: values of a matrix are known to its step alone
   |
10 | env = { OS = "${matrix.os}" }
   |              ^^^^^^^^^^^^^^
hint: move it into the step
"##,
    );
}

#[test]
fn wrong_values_are_told_once() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "x"
timeout = "${matrix.time}"
matrix = { time = ["5m", "5", "5x"], other = [1, 2, 3] }
"##,
        r##"
hmvm.toml:3:11: `5` has no unit
  |
3 | timeout = "${matrix.time}"
  |           ^^^^^^^^^^^^^^^^
hint: write "5s" for seconds or "5m" for minutes

hmvm.toml:3:11: unknown unit `x`
  |
3 | timeout = "${matrix.time}"
  |           ^^^^^^^^^^^^^^^^
hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d
"##,
    );
}

#[test]
fn one_step_of_a_matrix() {
    check(
        Format::Toml,
        r##"
[steps.build]
run = "make ${matrix.os} ${matrix.mode}"
matrix = { os = ["a", "b"], mode = ["debug", "release"] }

[steps.test]
from = "build"
run = "make check"

[steps.check]
from = "build"
run = "make check ${matrix.os}"
matrix = { os = ["a", "c"] }
"##,
        r##"
hmvm.toml:6:8: `build` stands for 4 steps; one is needed here
  |
6 | from = "build"
  |        ^^^^^^^
hint: name one: "build[os=a,mode=debug]"

hmvm.toml:10:8: `build` stands for 2 steps with the values [os=a]; one is needed here
   |
10 | from = "build"
   |        ^^^^^^^
hint: name one: "build[os=a,mode=debug]"

hmvm.toml:10:8: `build` has no step with the values [os=c]
   |
10 | from = "build"
   |        ^^^^^^^
hint: give both matrices the same values for the axes that they share
"##,
    );
}

#[test]
fn too_many_steps() {
    check(
        Format::Toml,
        r##"
[steps.a]
run = "x"
matrix = { a = [1,2,3,4,5,6,7,8,9,0], b = [1,2,3,4,5,6,7,8,9,0], c = [1,2,3,4,5,6,7,8,9,0], d = [1,2,3,4,5,6,7,8,9,0], e = [1, 2] }
"##,
        r##"
hmvm.toml:1:8: with `a` the pipeline has more than 10000 steps
  |
1 | [steps.a]
  |        ^
hint: leave values of the matrix out
"##,
    );
}
