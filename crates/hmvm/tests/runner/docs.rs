//! `docs/cli.md` is what the program says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::env::TestEnv;

const HEAD: &str = "\
# hmvm, command by command

Written by `UPDATE_DOCS=1 cargo test -p hmvm docs` from what each command says with `--help`; a test
compares the two.

## Exit codes

| code | meaning |
|---|---|
| the command's own | `exec` and `shell` pass it through, `run` that of the step that failed first; 128 + N when signal N ended it |
| 0 | everything that was asked for was done |
| 1 | `doctor` misses something or found something left over; `diff` and `explain` with `--exit-code` found a difference; `verify` found a step that differs or fails |
| 124 | the command did not end within `--timeout`, or a step or a run within its time |
| 125 | hmvm itself failed, or was asked for something that cannot be done; one line on standard error says what |
| 130 | cancelled by Ctrl-C, SIGTERM or SIGHUP; nothing that the command started is alive |
| 141 | standard output was closed by its reader, as in `hmvm … \\| head -1` |

Data goes to standard output; everything else to standard error. Colours are used on terminals only,
and not where `NO_COLOR` is set.

## Events of `exec --json`

One JSON object a line on standard output, each with `event`. The last one is a `result` or an
`error`. Later versions may add events and fields.

| event | further fields | when |
|---|---|---|
| `started` | `phase` | a phase begins: `lookup`, `wait` (for the same command elsewhere), `fetch` (from the shared cache), `create` or `restore`, `inject`, `prepare` (locks, secrets, services), `exec`, `snapshot`, `publish`, `destroy` |
| `ended` | `phase`, `ms` | it ended, well or not |
| `output` | `stream`, `line` | the command wrote a line to `stdout` or `stderr`; bytes that are not UTF-8 are U+FFFD |
| `notice` | `text` | something to know, although the work goes on |
| `shared` | `results`, `bytes` | so many results were given to the shared cache |
| `result` | `exit_code`, `cached`, `snapshot`, `kept`, `key`, `fetched_bytes`, `phases`, `usage` | the command ended, or was skipped; `kept` is the state of a failure, `fetched_bytes` what came from the shared cache, `phases` are milliseconds by name |
| `error` | `message`, `hint`, `exit_code` | hmvm failed, or the command was ended; `exit_code` is hmvm's own |

## Events of `run --json`

One JSON object a line on standard output, each with `event`. The first one is `run_started`, which
gives the version of this schema: `1`. The last one is `run_ended`. Those of one step come in order;
each step has exactly one `step_ended`. Later versions may add events and fields; one that changes
what is here has another number. Times are milliseconds, steps are named as in the file, and what is
not known is `null`.

| event | further fields | when |
|---|---|---|
| `run_started` | `schema`, `run`, `pipeline`, `steps`, `parallelism`, `log_directory` | the run begins; `run` is its number for `hmvm logs`, `steps` how many it has |
| `step_started` | `step`, `attempt` | a try of a step begins, from 1; also of a step that is cached |
| `phase` | `step`, `phase` | a part of a step begins, named as for `exec` |
| `progress` | `step`, `phase`, `unit`, `done`, `total` | a part that takes long goes on; `unit` is `files` or `bytes`, `total` is `null` where nobody knows |
| `output` | `step`, `stream`, `line` | the step wrote a line, or one that it wrote earlier is shown for it; secrets are masked |
| `service_output` | `step`, `service`, `stream`, `line` | a service of the step wrote a line |
| `notice` | `step`, `text` | something to know, although the run goes on; of no step, `step` is `null` |
| `shared` | `results`, `bytes` | so many results of the run were given to the shared cache, and so many bytes sent for them |
| `step_retried` | as `step_ended` | a try failed, and there will be another one |
| `step_ended` | `step`, `outcome`, `exit_code`, `cached`, `took_ms`, `saved_ms`, `fetched_bytes`, `attempt`, `key`, `snapshot`, `kept`, `log`, `reason`, `because`, `hint`, `allowed`, `output_files` | a step is over |
| `run_ended` | `verdict`, `step`, `exit_code`, `took_ms`, `counts`, `saved_ms` | the run is over |

`outcome` is `cached`, `succeeded`, `failed`, `timed_out`, `cancelled`, `skipped` or `broken` (it could
not be run). `exit_code` is the command's, 0 for a cached step, `null` where no command ended. `attempt`
is 0 for a step that was not tried. `saved_ms` is what a cached step took when it ran,
`fetched_bytes` what came of it from the shared cache: `null` where the result was here. `kept` is the
snapshot of a failed step's state, `log` the file with its output, which `hmvm logs` reads. For a skipped
step, `reason` is `condition`, `dependency` (on the step named by `because`), `run_failed` or
`not_needed`; for a broken one it is what happened, and `hint` what to do about it. `allowed` says that
a failure is none of the run.

`verdict` is `succeeded`, `failed`, `timed_out` or `cancelled`; `step` is the one that decided it, and
`exit_code` what the verdict makes of `hmvm`'s exit code: 0, the step's own, 124 or 130. `counts` has a
number for each outcome.
";

/// Fields of each documented event of `exec`.
pub(crate) fn documented_events() -> BTreeMap<String, BTreeSet<String>> {
    documented_below("## Events of `exec --json`")
}

/// Fields of each documented event of `run`.
pub(crate) fn documented_run_events() -> BTreeMap<String, BTreeSet<String>> {
    let mut events = documented_below("## Events of `run --json`");
    // Its fields are said to be those of the other one.
    let end = events["step_ended"].clone();
    events.insert("step_retried".into(), end);
    events
}

/// Events and fields of the table below a title.
fn documented_below(title: &str) -> BTreeMap<String, BTreeSet<String>> {
    let words = |cell: &str| -> BTreeSet<String> {
        let parts = cell.split('`').enumerate();
        parts
            .filter(|(place, _)| place % 2 == 1)
            .map(|(_, word)| word.to_owned())
            .collect()
    };
    let (_, chapter) = HEAD.split_once(title).expect("the title");
    let (_, table) = chapter.split_once("| event |").expect("the table");
    let table = table.split("\n\n").next().unwrap_or(table);
    table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            let event = words(cells[1]).pop_first().expect("a name");
            (event, words(cells[2]))
        })
        .collect()
}

#[test]
fn the_reference_is_what_the_program_says() {
    let env = TestEnv::new();
    let mut text = HEAD.to_owned();
    let mut paths = vec![Vec::new()];
    while let Some(path) = paths.pop() {
        let command = path
            .iter()
            .fold(&hmvm::command(), |command, name: &String| {
                // The walk only ever asks for names that it was given.
                command.find_subcommand(name).expect("a command")
            })
            .clone();
        let mut arguments = path.clone();
        arguments.push("--help".into());
        let help = env.hmvm(&arguments).success().stdout;
        assert!(help.contains("Example"), "{path:?} shows no example");
        let title = [vec!["hmvm".to_owned()], path.clone()].concat().join(" ");
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        text.push_str(&format!(
            "\n## {title}\n\n```text\n{}\n```\n",
            help.join("\n")
        ));
        let mut below: Vec<Vec<String>> = command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help")
            .map(|sub| [path.clone(), vec![sub.get_name().to_owned()]].concat())
            .collect();
        below.reverse();
        paths.extend(below);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(file.parent().expect("a parent")).expect("docs");
        fs::write(&file, &text).expect("docs/cli.md");
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == text,
        "docs/cli.md is out of date: run UPDATE_DOCS=1 cargo test -p hmvm docs"
    );
}
