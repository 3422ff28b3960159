//! The helper, as PID 1 of something like a container.

mod container;
mod files;
mod hostile;

use container::{Container, shell};
use hm_vm_sys::helper::{
    ReportKind, Request, UserProblem, hang_up_frame, input_frames, kill_frame, probe_frame,
    signal_frame, size_frame,
};
use hm_vm_testkit::require;

#[test]
fn the_end_of_a_command_is_reported() {
    let mut vm = require!(Container::start());
    let mut kind = |request: &Request| vm.run(request).kind();
    assert_eq!(kind(&shell("exit 7")), ReportKind::Exited(7));
    assert_eq!(kind(&shell("exit 255")), ReportKind::Exited(255));
    assert_eq!(kind(&shell("kill -9 $$")), ReportKind::Signaled(9));
    assert_eq!(kind(&shell("kill -TERM $$")), ReportKind::Signaled(15));
    let missing = Request::new(["/no/such/program"]);
    assert_eq!(kind(&missing), ReportKind::NotExecuted(2));
    let ended = vm.run(&shell("echo out; echo err >&2"));
    assert_eq!((ended.out.as_str(), ended.err.as_str()), ("out\n", "err\n"));
}

#[test]
fn nothing_of_a_command_is_alive_after_it() {
    let mut vm = require!(Container::start());
    vm.shell(
        "sleep 1000 & setsid sleep 1000 & (trap '' TERM HUP; sleep 1000) & \
         (sleep 1000 >/dev/null 2>&1 &) & sleep 1000 | sleep 1000 & true",
    );
    let alive = vm.shell("cat /proc/[0-9]*/comm");
    assert_eq!(alive.lines().collect::<Vec<_>>(), ["helper", "cat"]);
}

#[test]
fn orphans_are_reaped_while_a_command_runs() {
    let mut vm = require!(Container::start());
    let states = vm.shell(
        "i=0; while [ $i -lt 50 ]; do (true & ) ; i=$((i+1)); done; \
         while grep -q 'State:.*Z' /proc/[0-9]*/status; do :; done; echo clean",
    );
    assert_eq!(states, "clean\n");
}

#[test]
fn output_is_complete_and_in_order() {
    let mut vm = require!(Container::start());
    let ended = vm.run(&shell("seq 1 1500000; seq 1 100000 >&2"));
    let numbers = |most: u32| (1..=most).map(|n| format!("{n}\n")).collect::<String>();
    assert!(ended.out.len() > 10 << 20);
    assert!(ended.out == numbers(1_500_000) && ended.err == numbers(100_000));
}

#[test]
fn the_end_of_the_input_ends_everything() {
    for command in ["sleep 1000", "yes", ""] {
        let mut vm = require!(Container::start());
        if !command.is_empty() {
            vm.begin(&shell(command));
        }
        vm.close();
        assert_eq!(vm.exit().code(), Some(0), "{command}");
    }
}

#[test]
fn signals_reach_everybody() {
    let mut vm = require!(Container::start());
    let term = signal_frame(15);
    let trapped = vm.begin(&shell(
        "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 1000 & wait; done",
    ));
    let ended = vm.end_with(&trapped, "ready", |vm| vm.send(&term));
    assert_eq!(ended.kind(), ReportKind::Exited(3));
    assert_eq!(ended.out, "ready\ngot\n");
    let stopped = vm.begin(&shell("echo ready; kill -STOP $$; sleep 1000"));
    let ended = vm.end_with(&stopped, "ready", |vm| vm.send(&term));
    assert_eq!(ended.kind(), ReportKind::Signaled(15));
    let deaf = vm.begin(&shell(
        "trap '' TERM; echo ready; while :; do sleep 1000; done",
    ));
    let ended = vm.end_with(&deaf, "ready", |vm| {
        vm.send(&term);
        vm.send(&kill_frame());
    });
    assert_eq!(ended.kind(), ReportKind::Signaled(9));
    // What comes too late is nobody's.
    vm.send(&kill_frame());
    vm.send(&hang_up_frame());
    assert_eq!(vm.shell("echo still here"), "still here\n");
}

#[test]
fn users_are_those_of_the_guest() {
    let mut vm = require!(Container::start());
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
    let group = "root:x:0:\nwheel:x:10:root,app\naudio:x:29:app\nstaff:x:50:\n";
    std::fs::write(vm.root.join("etc/passwd"), passwd).expect("passwd");
    std::fs::write(vm.root.join("etc/group"), group).expect("group");
    let who = "echo $(id -u) $(id -g) $(id -G) $HOME $USER $LOGNAME; echo again >/dev/stdout";
    let cases = [
        ("app", "1000 1001 1001 10 29 /home/app app app"),
        ("1000", "1000 1001 1001 10 29 /home/app app app"),
        ("app:staff", "1000 50 50 /home/app app app"),
        ("4242", "4242 0 0 / 4242 4242"),
        ("4242:77", "4242 77 77 / 4242 4242"),
        ("root", "0 0 0 10 /root root root"),
    ];
    for (user, expected) in cases {
        let ended = vm.run(&shell(who).user(user));
        assert_eq!(
            ended.out,
            format!("{expected}\nagain\n"),
            "{user}: {ended:?}"
        );
    }
    assert_eq!(vm.shell(who), "0 0 0 /root root\nagain\n");
    let none = vm.run(&shell("echo ran").user("app")).report;
    assert_eq!(none.kind, ReportKind::Exited(0));
    for (user, problem) in [
        ("nobody", UserProblem::NoUser),
        ("4294967295", UserProblem::NoUser),
        ("app:nobody", UserProblem::NoGroup),
        ("app:", UserProblem::Form),
        (":app", UserProblem::Form),
    ] {
        let ended = vm.run(&shell("echo ran").user(user));
        assert_eq!(
            (ended.kind(), ended.out.as_str()),
            (ReportKind::User(problem), "")
        );
    }
}

#[test]
fn declared_variables_stand_over_the_account_and_that_over_defaults() {
    let mut vm = require!(Container::start());
    let show =
        || shell("env | sort | grep -v -e PWD -e SHLVL").default_variable("HOME", "/default");
    let root = vm.run(&show());
    assert_eq!(root.out, "HOME=/default\nPATH=/bin\nUSER=root\n");
    let user = vm.run(&show().user("root"));
    assert_eq!(user.out, "HOME=/root\nLOGNAME=root\nPATH=/bin\nUSER=root\n");
    let declared = vm.run(
        &show()
            .user("root")
            .variable("HOME", "/a=b")
            .variable("X", ""),
    );
    assert_eq!(
        declared.out,
        "HOME=/a=b\nLOGNAME=root\nPATH=/bin\nUSER=root\nX=\n"
    );
}

#[test]
fn a_terminal_echoes_and_has_a_size() {
    let mut vm = require!(Container::start());
    let script = "trap 'stty size; exit 4' WINCH; tty; stty size; read word; echo got $word; \
                  echo err >&2; while :; do sleep 1000 & wait; done";
    let nonce = vm.begin(&shell(script).terminal(101, 33));
    let ended = vm.end_with(&nonce, "33 101", |vm| {
        vm.send(&input_frames(b"hello\n"));
        vm.send(&size_frame(77, 22));
    });
    // The size may come before the word is read: both orders are right, and in both it is shown.
    assert!(
        ended.out.starts_with("/dev/pts/0\r\n33 101\r\n"),
        "{}",
        ended.out
    );
    assert!(ended.out.contains("hello\r\n"), "{}", ended.out);
    assert!(ended.out.ends_with("22 77\r\n"), "{}", ended.out);
    assert_eq!(
        (ended.kind(), ended.err.as_str()),
        (ReportKind::Exited(4), "")
    );
}

#[test]
fn a_terminal_shows_all_and_takes_much() {
    let mut vm = require!(Container::start());
    let nonce = vm.begin(&shell("seq 1 100000").terminal(80, 24));
    let expected: String = (1..=100_000).map(|n| format!("{n}\r\n")).collect();
    assert!(vm.end(&nonce).out == expected);
    // More than the queue of typed bytes takes, to a command that reads it later.
    let nonce = vm.begin(
        &shell("stty raw -echo; echo ready; head -c 3000000 | wc -c; stty onlcr").terminal(80, 24),
    );
    let ended = vm.end_with(&nonce, "ready", |vm| {
        vm.send(&input_frames(&vec![b'x'; 3_000_000]))
    });
    assert!(ended.out.ends_with("3000000\n"), "{}", ended.out);
    let nonce =
        vm.begin(&shell("trap 'exit 5' HUP; echo ready; sleep 1000 & wait").terminal(80, 24));
    let ended = vm.end_with(&nonce, "ready", |vm| vm.send(&hang_up_frame()));
    assert_eq!(ended.kind(), ReportKind::Exited(5));
    let nonce = vm.begin(&shell("echo ready; sleep 1000").terminal(80, 24));
    let ended = vm.end_with(&nonce, "ready", |vm| vm.send(&input_frames(b"\x03")));
    assert_eq!(ended.kind(), ReportKind::Signaled(2));
}

#[test]
fn use_of_the_machine_is_counted() {
    let mut vm = require!(Container::start());
    let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; (dd if=/dev/zero of=/f bs=1M count=8; sync)";
    vm.shell("mknod /dev/zero c 1 5");
    let busy = vm.run(&shell(busy)).report;
    assert!(busy.cpu.as_millis() > 5, "{busy:?}");
    assert!(
        busy.peak_memory_bytes.is_some_and(|peak| peak > 100 << 10),
        "{busy:?}"
    );
    assert!(busy.written_bytes >= 4 << 20, "{busy:?}");
    let idle = vm.run(&shell("true")).report;
    assert!(idle.cpu < busy.cpu && idle.written_bytes < busy.written_bytes);
}

#[test]
fn a_port_that_accepts_is_found() {
    let mut vm = require!(Container::start());
    let mut accepts = |port| {
        let nonce = vm.nonce();
        vm.send(&probe_frame(&nonce, port));
        vm.end(&nonce).kind()
    };
    assert_eq!(accepts(5556), ReportKind::Done(0));
    // Its listener was started beside the helper.
    let mut tries = 0..10_000;
    assert!(tries.any(|_| accepts(5555) == ReportKind::Done(1)));
}
