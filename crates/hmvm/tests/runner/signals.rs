//! Ctrl-C once and twice, other signals, and readers that go away.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use hm_vm_testkit::require;
use rustix::process::{Pid, Signal, kill_process};

use crate::env::{TestEnv, without_notices};

/// A run of the program that is under way.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hmvm starts");
        Self {
            stdout: BufReader::new(child.stdout.take().expect("a pipe")),
            stderr: BufReader::new(child.stderr.take().expect("a pipe")),
            child,
        }
    }

    #[track_caller]
    fn expect_line(&mut self, expected: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        assert_eq!(line, format!("{expected}\n"));
    }

    #[track_caller]
    fn expect_talk(&mut self, expected: &str) {
        let mut line = String::new();
        while without_notices(&line).is_empty() {
            line.clear();
            assert_ne!(
                self.stderr.read_line(&mut line).expect("a line"),
                0,
                "silence"
            );
        }
        assert!(line.starts_with(expected), "{line:?}");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill_process(pid.expect("a pid"), signal).expect("the signal is sent");
    }

    /// Exit code, and the rest of both streams.
    fn end(mut self) -> (i32, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).expect("output");
        self.stderr.read_to_string(&mut err).expect("talk");
        let status = self.child.wait().expect("an end");
        assert_eq!(status.signal(), None, "ended by a signal: {err}");
        (status.code().expect("a code"), out, without_notices(&err))
    }
}

const POLITE: &str = "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 0.05; done";

#[test]
fn ctrl_c_once_asks_the_command_to_end() {
    let env = require!(TestEnv::machine());
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut run = Running::start(&mut env.command(["exec", "--grace", "1h", "--", POLITE]));
        run.expect_line("ready");
        run.signal(signal);
        let (code, out, err) = run.end();
        assert_eq!((code, out.as_str()), (130, "asked\n"), "{err}");
        // The guest's shell may have a word of its own in between.
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(
            (lines.first(), lines.last()),
            (
                Some(&"hmvm: stopping, the command has 1 h 0 min to end (once more: at once)"),
                Some(&"error: cancelled: by the user")
            )
        );
    }
    assert_nothing_is_left(&env);
}

#[test]
fn a_command_that_does_not_listen_is_killed_after_its_grace() {
    let env = require!(TestEnv::machine());
    let mut run = Running::start(&mut env.command(["exec", "--grace", "200ms", "--", STUBBORN]));
    run.expect_line("ready");
    run.signal(Signal::INT);
    assert_eq!(run.end().0, 130);
    assert_nothing_is_left(&env);
}

#[test]
fn ctrl_c_twice_kills_at_once() {
    let env = require!(TestEnv::machine());
    // Without the second signal the test would take an hour.
    let mut run = Running::start(&mut env.command(["exec", "--grace", "1h", "--", STUBBORN]));
    run.expect_line("ready");
    run.signal(Signal::INT);
    run.expect_talk("hmvm: stopping");
    run.signal(Signal::INT);
    assert_eq!(run.end().0, 130);
    assert_nothing_is_left(&env);
}

#[test]
fn a_reader_that_goes_away_ends_the_command() {
    let env = require!(TestEnv::machine());
    for options in [&["exec"][..], &["exec", "--json"]] {
        let command = ["--cache", "off", "--", "yes"];
        let mut run = Running::start(&mut env.command(options.iter().chain(&command)));
        let mut some = [0; 100];
        run.stdout.read_exact(&mut some).expect("output");
        // Closes the pipe, as `head` does when it has seen enough.
        let Running {
            mut child,
            stdout,
            mut stderr,
        } = run;
        drop(stdout);
        let mut talk = String::new();
        stderr.read_to_string(&mut talk).expect("talk");
        assert_eq!(child.wait().expect("an end").code(), Some(141), "{talk}");
        assert_eq!(without_notices(&talk), "");
    }
    assert_nothing_is_left(&env);
}

#[test]
fn a_reader_that_reads_nothing_holds_up_neither_ctrl_c_nor_the_time_limit() {
    let env = require!(TestEnv::machine());
    let arguments = ["exec", "--cache", "off", "--", "echo ready; yes"];
    let mut run = Running::start(&mut env.command(arguments));
    run.expect_line("ready");
    run.signal(Signal::INT);
    run.expect_talk("hmvm: stopping");
    run.expect_talk("error: cancelled");
    assert_eq!(run.child.wait().expect("an end").code(), Some(130));

    let arguments = ["exec", "--cache", "off", "--timeout", "500ms", "--", "yes"];
    let mut run = Running::start(&mut env.command(arguments));
    run.expect_talk("error: the command did not end within 500 ms");
    assert_eq!(run.child.wait().expect("an end").code(), Some(124));
    assert_nothing_is_left(&env);
}

#[test]
fn listings_end_quietly_when_nobody_reads() {
    let env = TestEnv::new();
    for arguments in [&["completions", "bash"][..], &["doctor"], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let run = env.run(env.command(arguments).stdout(writer));
        assert_eq!((run.code, run.stderr.as_str()), (141, ""), "{arguments:?}");
    }
}

#[track_caller]
fn assert_nothing_is_left(env: &TestEnv) {
    assert_eq!(env.leftovers(), serde_json::json!([]));
    assert_eq!(env.traces(), Vec::<String>::new());
}
