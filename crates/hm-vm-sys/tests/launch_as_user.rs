//! Commands of other users than root.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;

use hm_vm_sys::UserNamespace;
use hm_vm_sys::launch::{Concealed, Launch, Namespaces, NetworkOf, Op, Process, launch};
use hm_vm_sys::userns::Mapping;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

fn plan(script: &str, inner: Vec<Op>) -> Launch {
    let null = || -> OwnedFd {
        let mut options = File::options();
        options.read(true).write(true);
        options.open("/dev/null").expect("null").into()
    };
    let namespace = UserNamespace::for_current_user().expect("user namespaces are allowed");
    Launch {
        user_namespace: Arc::new(namespace),
        outer: Vec::new(),
        namespaces: Namespaces {
            network: NetworkOf::New,
        },
        inner,
        argv: ["/bin/sh", "-c", script]
            .map(|text| CString::new(text).expect("no NUL"))
            .to_vec(),
        env: Vec::new(),
        stdio: [null(), null(), null()],
        terminal: false,
        gated: true,
    }
}

fn start(plan: Launch) -> Process {
    let (sender, receiver) = channel();
    launch(plan, move |result| sender.send(result).expect("received")).expect("spawners");
    receiver.recv().expect("a reply").expect("started")
}

fn other_user() -> Vec<Op> {
    vec![
        Op::KeepCapabilities(0b1100_0000),
        Op::BecomeUser {
            uid: 1000,
            gid: 1001,
            groups: Some(vec![7, 8]),
        },
        Op::NoNewPrivileges,
    ]
}

fn has_other_users() -> bool {
    let namespace = UserNamespace::for_current_user().expect("user namespaces are allowed");
    let has = namespace.mapping() == Mapping::Range;
    if !has {
        assert!(
            std::env::var_os("HMVM_TEST_REQUIRE_ALL").is_none(),
            "needs subordinate ids"
        );
        eprintln!("SKIPPED: needs subordinate ids");
    }
    has
}

#[test]
fn init_is_the_user_too_and_can_be_signalled() {
    if !has_other_users() {
        return;
    }
    let mut process = start(plan(
        "trap 'exit 9' TERM; while :; do sleep 1; done",
        other_user(),
    ));
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("alive");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let words = line.expect("a field").split_whitespace().skip(1);
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    let uids = field("Uid:");
    assert!(uids.iter().all(|uid| *uid == uids[0]) && uids[0] != "0");
    assert_eq!(field("Groups:").len(), 2);
    process.open_gate().expect("alive");
    process.kill();
    let pidfd = process.pidfd();
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).expect("poll");
}

/// Part of the test below: a program that is killed.
#[test]
#[ignore = "started by another test"]
fn helper_that_is_killed() {
    let mut process = start(plan("sleep 1000", other_user()));
    process.open_gate().expect("alive");
    println!("\nPID {}", process.pid());
    let _ = std::io::stdin().lines().next();
}

#[test]
fn a_users_command_dies_with_the_program() {
    if !has_other_users() {
        return;
    }
    let mut program = Command::new(std::env::current_exe().expect("a path"))
        .args([
            "--exact",
            "helper_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = BufReader::new(program.stdout.take().expect("piped"));
    let pid = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("PID ")?.parse().ok())
        .and_then(Pid::from_raw)
        .expect("a pid");
    let init = pidfd_open(pid, PidfdFlags::empty()).expect("alive");
    program.kill().expect("killed");
    program.wait().expect("ended");
    // Without the signal at the program's death, this would wait for the command.
    poll(&mut [PollFd::new(&init, PollFlags::IN)], None).expect("poll");
}

#[test]
fn the_list_of_operations_does_not_show_secrets() {
    let op = Op::WriteSecret {
        path: c"/dev/.secrets/0".into(),
        content: Concealed::new(b"hunter2".to_vec()),
        owner: (0, 0),
    };
    let plan = plan("true", vec![op.clone()]);
    for text in [plan.to_string(), format!("{plan:?}"), op.describe()] {
        assert!(
            !text.contains("hunter2") && !text.contains("104, 117"),
            "{text}"
        );
        assert!(text.contains("/dev/.secrets/0"));
    }
}
