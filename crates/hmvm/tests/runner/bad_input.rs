//! Wrong input: one clear line, a hint, exit code 125, and nothing changed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::env::TestEnv;

/// Arguments, then standard error as it must be.
const OPTIONS: &[(&[&str], &str)] = &[
    (
        &["exec", "--timeout", "90", "--", "true"],
        "error: invalid value '90' for '--timeout <TIME>': a unit is missing\n\
         hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d\n",
    ),
    (
        &["exec", "--timeout", "0s", "--", "true"],
        "error: invalid value '0s' for '--timeout <TIME>': must be more than zero\n\
         hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d\n",
    ),
    (
        &["exec", "--timeout", "-5s", "--", "true"],
        "error: invalid value '-5s' for '--timeout <TIME>': must be more than zero\n\
         hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d\n",
    ),
    (
        &["exec", "--timeout", "0", "--", "true"],
        "error: invalid value '0' for '--timeout <TIME>': a unit is missing\n\
         hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d\n",
    ),
    (
        &[
            "exec",
            "--timeout",
            "99999999999999999999999d",
            "--",
            "true",
        ],
        "error: invalid value '99999999999999999999999d' for '--timeout <TIME>': too long\n\
         hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d\n",
    ),
    (
        &["exec", "--grace", "-1s", "--", "true"],
        "error: invalid value '-1s' for '--grace <TIME>': must be more than zero\n\
         hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d\n",
    ),
    (
        &["exec", "--memory", "-1MiB", "--", "true"],
        "error: invalid value '-1MiB' for '--memory <SIZE>': must be more than zero\n\
         hint: write a number and a unit: 512MiB, 1.5GiB or 2G\n",
    ),
    (
        &[
            "exec",
            "--memory",
            "99999999999999999999999999999GiB",
            "--",
            "true",
        ],
        "error: invalid value '99999999999999999999999999999GiB' for '--memory <SIZE>': too large\n\
         hint: write a number and a unit: 512MiB, 1.5GiB or 2G\n",
    ),
    (
        &["exec", "--memory", "1PiB", "--", "true"],
        "error: invalid value '1PiB' for '--memory <SIZE>': unknown unit \"PiB\"\n\
         hint: write a number and a unit: 512MiB, 1.5GiB or 2G\n",
    ),
    (
        &["exec", "--disk", "4096TiB", "--", "true"],
        "error: invalid value '4096TiB' for '--disk <SIZE>': too large\n\
         hint: write 15TiB or less, or leave it out\n",
    ),
    (
        &["exec", "--cpus", "4294967295", "--", "true"],
        "error: invalid value '4294967295' for '--cpus <N>': too large\n\
         hint: write a whole number such as 4\n",
    ),
    (
        &["exec", "--pids", "-1", "--", "true"],
        "error: invalid value '-1' for '--pids <N>': not a whole number from 1\n\
         hint: write a whole number such as 4\n",
    ),
    (
        &["exec", "--workdir", "", "--", "true"],
        "error: invalid value '' for '--workdir <PATH>': not an absolute path\n\
         hint: write it from the VM's root: /\n",
    ),
    (
        &["cache", "gc", "--keep", "-1"],
        "error: invalid value '-1' for '--keep <N>': not a whole number from 1\n\
         hint: write a whole number such as 4\n",
    ),
    (
        &["cache", "gc", "--max-size", "10GB"],
        "error: invalid value '10GB' for '--max-size <SIZE>': GB is read as 1000s by some and as 1024s by others\n\
         hint: write GiB for powers of 1024\n",
    ),
    (
        &["cache", "gc", "--unused-for", "0d"],
        "error: invalid value '0d' for '--unused-for <TIME>': must be more than zero\n\
         hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d\n",
    ),
    (
        &["exec", "--inject", "", "--", "true"],
        "error: a value is required for '--inject <DIR>' but none was supplied\n\
         hint: hmvm exec --help shows what it takes\n",
    ),
    (
        &["snapshot", "cp", "ab:/x", ""],
        "error: a value is required for '<HOST>' but none was supplied\n\
         hint: hmvm snapshot cp --help shows what it takes\n",
    ),
    (
        &["explain"],
        "error: the following required arguments were not provided: <STEP|KEY1>\n\
         hint: hmvm explain --help shows what it takes\n",
    ),
    (
        &["snapshot", "cp", ":/x", "y"],
        "error: invalid value ':/x' for '<SNAPSHOT:/PATH>': not of the form SNAPSHOT:/path\n\
         hint: as in 3f2a81:/src/report.txt\n",
    ),
    (
        &["exec", "--memory", "512", "--", "true"],
        "error: invalid value '512' for '--memory <SIZE>': a unit is missing\n\
         hint: write a number and a unit: 512MiB, 1.5GiB or 2G\n",
    ),
    (
        &["exec", "--memory", "512MB", "--", "true"],
        "error: invalid value '512MB' for '--memory <SIZE>': MB is read as 1000s by some and as 1024s by others\n\
         hint: write MiB for powers of 1024\n",
    ),
    (
        &["exec", "--disk", "1500MiB", "--", "true"],
        "error: invalid value '1500MiB' for '--disk <SIZE>': not a whole number of GiB\n\
         hint: write 2GiB\n",
    ),
    (
        &["exec", "--cpus", "0", "--", "true"],
        "error: invalid value '0' for '--cpus <N>': must be at least 1\n\
         hint: write a whole number such as 4\n",
    ),
    (
        &["exec", "--pids", "1.5", "--", "true"],
        "error: invalid value '1.5' for '--pids <N>': not a whole number from 1\n\
         hint: write a whole number such as 4\n",
    ),
    (
        &["exec", "--network", "all", "--", "true"],
        "error: invalid value 'all' for '--network <POLICY>' [possible values: none, outbound, host]\n\
         hint: write one of the possible values\n",
    ),
    (
        &["exec", "--allow-weaker", "all", "--", "true"],
        "error: invalid value 'all' for '--allow-weaker <PROTECTION>' [possible values: seccomp, id-map, masked-paths]\n\
         hint: write one of the possible values\n",
    ),
    (
        &["exec", "--backend", "jail", "--", "true"],
        "error: invalid value 'jail' for '--backend <BACKEND>' [possible values: auto, sandbox, docker, podman]\n\
         hint: write one of the possible values\n",
    ),
    (
        &["exec", "--workdir", "src", "--", "true"],
        "error: invalid value 'src' for '--workdir <PATH>': not an absolute path\n\
         hint: write it from the VM's root: /src\n",
    ),
    (
        &["exec", "-e", "=x", "--", "true"],
        "error: invalid value '=x' for '--env <NAME[=VALUE]>': the name is empty\n\
         hint: write NAME=VALUE, or NAME to take over the value it has here\n",
    ),
    (
        &["exec", "-e", "NOT_SET_HERE", "--", "true"],
        "error: -e NOT_SET_HERE: the variable is not set here\n\
         hint: give it a value: -e NOT_SET_HERE=VALUE\n",
    ),
    (
        &["exec", "--cache", "", "--", "true"],
        "error: invalid value '' for '--cache <auto|off|KEY>': the key is empty\n\
         hint: write auto, off, or a key of your own\n",
    ),
    (
        &["exec", "--image", "host", "--from", "a", "--", "true"],
        "error: the argument '--image <IMAGE>' cannot be used with '--from <SNAPSHOT>'\n\
         hint: hmvm exec --help shows what it takes\n",
    ),
    (
        &["exec", "--tiemout", "1s", "--", "true"],
        "error: unexpected argument '--tiemout' found\n\
         hint: a similar argument exists: '--timeout'\n",
    ),
    (
        &["exec", "make", "test"],
        "error: unexpected argument 'make' found\n\
         hint: the command stands behind --, as in: hmvm exec -- make\n",
    ),
    (
        &["exec"],
        "error: the following required arguments were not provided: <CMD>...\n\
         hint: hmvm exec --help shows what it takes\n",
    ),
    (
        &["exec", "--", " "],
        "error: the command is empty\nhint: write it after --: hmvm exec -- make\n",
    ),
    (
        &["exec", "--inject", "nowhere", "--", "true"],
        "error: --inject nowhere: no such directory\n\
         hint: give the directory whose contents the command needs: --inject .\n",
    ),
    (
        &["exec", "--inject", "/etc/passwd", "--", "true"],
        "error: --inject /etc/passwd: not a directory\n\
         hint: give the directory whose contents the command needs: --inject .\n",
    ),
    (
        &["shell"],
        "error: standard input is not a terminal\nhint: hmvm exec runs commands without one\n",
    ),
    (
        &["snapshot", "cat", "abc"],
        "error: invalid value 'abc' for '<SNAPSHOT:/PATH>': not of the form SNAPSHOT:/path\n\
         hint: as in 3f2a81:/src/report.txt\n",
    ),
    (
        &["image", "import", "nowhere", "x"],
        "error: nowhere: No such file or directory (os error 2)\n\
         hint: hmvm image import takes a directory with a root file system, a tar archive of one, an OCI layout, or what docker save writes\n",
    ),
    (
        &["completions", "cobol"],
        "error: invalid value 'cobol' for '<SHELL>' [possible values: bash, elvish, fish, powershell, zsh]\n\
         hint: write one of the possible values\n",
    ),
    (
        &["sanpshot"],
        "error: unrecognized subcommand 'sanpshot'\n\
         hint: a similar subcommand exists: 'snapshot'\n",
    ),
];

#[test]
fn options_that_make_no_sense_are_told_in_one_line() {
    let env = TestEnv::new();
    for (arguments, expected) in OPTIONS {
        let run = env.hmvm(*arguments);
        assert_eq!(run.stderr, *expected, "{arguments:?}");
        assert_eq!((run.code, run.stdout.as_str()), (125, ""), "{arguments:?}");
        assert!(!env.store().exists(), "{arguments:?} made a store");
    }
}

#[test]
fn bytes_that_are_not_text_are_refused_by_name() {
    let env = TestEnv::new();
    let odd = OsStr::from_bytes(b"a\xff");
    let arguments = ["exec", "--", "echo"].map(OsStr::new);
    let run = env
        .hmvm(arguments.iter().copied().chain([odd]))
        .exits_with(125);
    assert!(
        run.stderr
            .starts_with("error: argument 2 of the command is not UTF-8: \"a\\xFF\"\nhint: "),
        "{}",
        run.stderr
    );
}

#[test]
fn without_a_command_help_is_shown() {
    let env = TestEnv::new();
    let run = env.hmvm([""; 0]).exits_with(125);
    assert!(run.stderr.contains("Usage: hmvm"), "{}", run.stderr);
    let run = env.hmvm(["--version"]).success();
    assert_eq!(run.stdout, format!("hmvm {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_store_without_a_place_or_a_filter_that_is_none_is_told() {
    let env = TestEnv::new();
    let run = env.run(
        env.command(["snapshot", "ls"])
            .env_remove("HMVM_STORE")
            .env_remove("HOME"),
    );
    assert_eq!(
        run.exits_with(125).stderr,
        "error: no place for the store: neither XDG_DATA_HOME nor HOME is set\n\
         hint: give one: --store DIR, or HMVM_STORE=DIR\n"
    );
    let run = env.run(env.command(["snapshot", "ls"]).env("HMVM_LOG", "a=b=c"));
    assert!(
        run.exits_with(125)
            .stderr
            .starts_with("error: HMVM_LOG=\"a=b=c\": ")
    );
}
