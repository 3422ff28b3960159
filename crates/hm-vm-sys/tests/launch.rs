//! Real processes in real namespaces, as whoever runs the tests.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::channel;

use hm_vm_sys::UserNamespace;
use hm_vm_sys::launch::{
    CommandEnd, Launch, LaunchError, Namespaces, NetworkOf, Op, Process, launch,
};
use rustix::event::{PollFd, PollFlags, poll};

fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

fn namespace() -> Arc<UserNamespace> {
    Arc::new(UserNamespace::for_current_user().expect("user namespaces are allowed"))
}

fn command(script: &str, stdout: OwnedFd, inner: Vec<Op>) -> Launch {
    let null = || {
        OwnedFd::from(
            std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .expect("null"),
        )
    };
    Launch {
        user_namespace: namespace(),
        // Only root may unshare mounts outside of the user namespace, and need not: all get a mount
        // namespace of their own inside.
        outer: Vec::new(),
        namespaces: Namespaces {
            network: NetworkOf::New,
        },
        inner,
        argv: ["/bin/sh", "-c", script].map(c).to_vec(),
        env: vec![c("PATH=/usr/bin:/bin")],
        stdio: [null(), stdout, null()],
        terminal: false,
        gated: false,
    }
}

fn start(plan: Launch) -> Result<Process, LaunchError> {
    let (sender, receiver) = channel();
    launch(plan, move |result| sender.send(result).expect("received")).expect("spawners");
    receiver.recv().expect("a reply")
}

fn wait(process: &Process) {
    let pidfd = process.pidfd();
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).expect("poll");
}

fn run(script: &str, inner: Vec<Op>) -> (String, Option<CommandEnd>) {
    let (read, write) = std::io::pipe().expect("pipe");
    let mut process = start(command(script, write.into(), inner)).expect("started");
    let mut text = String::new();
    { read }.read_to_string(&mut text).expect("output");
    wait(&process);
    let end = process.command_end();
    assert!(process.reap().is_some());
    (text, end)
}

#[test]
fn work_in_the_namespace_is_roots_and_shares_memory() {
    let namespace = namespace();
    let mut touched = vec![1, 2];
    let uid = namespace
        .run(|| {
            touched.push(3);
            rustix::process::geteuid().as_raw()
        })
        .expect("runs");
    assert_eq!((uid, touched), (0, vec![1, 2, 3]));
    assert_eq!(namespace.run(|| 7).expect("runs again"), 7);
}

#[test]
fn a_panic_of_the_work_reaches_the_caller() {
    let namespace = namespace();
    let caught = std::panic::catch_unwind(|| namespace.run(|| -> u8 { panic!("inside") }));
    let panic = caught.expect_err("panicked");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"inside"));
}

#[test]
fn the_command_is_root_in_a_pid_namespace_of_its_own() {
    let (text, end) = run("id -u; echo $$; read x </proc/self/status; exit 7", vec![]);
    assert_eq!(text, "0\n2\n");
    assert_eq!(end, Some(CommandEnd::Exited(7)));
}

#[test]
fn signals_and_missing_programs_are_told_apart() {
    assert_eq!(run("kill -9 $$", vec![]).1, Some(CommandEnd::Signaled(9)));
    let (_, write) = std::io::pipe().expect("pipe");
    let mut plan = command("", write.into(), vec![]);
    plan.argv[0] = c("/no/such/program");
    let process = start(plan).expect("started");
    wait(&process);
    assert_eq!(
        process.command_end(),
        Some(CommandEnd::NotExecuted(libc::ENOENT))
    );
}

#[test]
fn the_failed_operation_is_named() {
    let (_, write) = std::io::pipe().expect("pipe");
    let bad = Op::Mount {
        source: c("none"),
        target: c("/proc"),
        fstype: c("no-such-fs"),
        flags: 0,
        data: c(""),
        optional: false,
    };
    let error = start(command("true", write.into(), vec![bad])).expect_err("fails");
    assert!(
        error.to_string().contains("mounting no-such-fs at /proc"),
        "{error}"
    );
}

#[test]
fn the_whole_tree_ends_with_the_command() {
    // The background shell holds the output open: the end of it comes only when it is dead.
    let (text, end) = run(
        "(trap '' TERM HUP; while :; do sleep 100; done) & echo done",
        vec![],
    );
    assert_eq!(
        (text.as_str(), end),
        ("done\n", Some(CommandEnd::Exited(0)))
    );
}

#[test]
fn terminate_reaches_the_command_and_drop_kills() {
    let (mut read, write) = std::io::pipe().expect("pipe");
    let script = "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 100 & wait; done";
    let process = start(command(script, write.into(), vec![])).expect("started");
    let mut ready = [0; 6];
    read.read_exact(&mut ready).expect("ready");
    process.terminate();
    wait(&process);
    assert_eq!(process.command_end(), Some(CommandEnd::Exited(3)));

    let (mut read, write) = std::io::pipe().expect("pipe");
    let process = start(command(
        "trap '' TERM; echo ready; sleep 100",
        write.into(),
        vec![],
    ))
    .expect("started");
    read.read_exact(&mut ready).expect("ready");
    drop(process);
    let mut rest = String::new();
    read.read_to_string(&mut rest)
        .expect("closed, as all are dead");
    assert_eq!(rest, "");
}
