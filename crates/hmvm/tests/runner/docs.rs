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
| the command's own | `exec` and `shell` pass it through; 128 + N when signal N ended it |
| 0 | everything that was asked for was done |
| 1 | `doctor` misses something or found something left over; `diff` and `explain` with `--exit-code` found a difference |
| 124 | the command did not end within `--timeout` |
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
| `started` | `phase` | a phase begins: `lookup`, `wait` (for the same command elsewhere), `create` or `restore`, `inject`, `exec`, `snapshot`, `publish`, `destroy` |
| `ended` | `phase`, `ms` | it ended, well or not |
| `output` | `stream`, `line` | the command wrote a line to `stdout` or `stderr`; bytes that are not UTF-8 are U+FFFD |
| `notice` | `text` | something to know, although the work goes on |
| `result` | `exit_code`, `cached`, `snapshot`, `kept`, `key`, `phases`, `usage` | the command ended, or was skipped; `kept` is the state of a failure, `phases` are milliseconds by name |
| `error` | `message`, `hint`, `exit_code` | hmvm failed, or the command was ended; `exit_code` is hmvm's own |
";

/// Fields of each documented event.
pub(crate) fn documented_events() -> BTreeMap<String, BTreeSet<String>> {
    let words = |cell: &str| -> BTreeSet<String> {
        let parts = cell.split('`').enumerate();
        parts
            .filter(|(place, _)| place % 2 == 1)
            .map(|(_, word)| word.to_owned())
            .collect()
    };
    let (_, table) = HEAD.split_once("| event |").expect("the table");
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
