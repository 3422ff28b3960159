//! Secrets, scripts, working directories, removal.

use std::fs;
use std::os::unix::fs::symlink;

use hm_vm_sys::helper::{ReportKind, Request, remove_frame};
use hm_vm_testkit::require;

use crate::container::{Container, shell};

#[test]
fn secrets_are_there_while_a_command_runs() {
    let mut vm = require!(Container::start());
    let script = "cd /dev/hm-vm-secrets; cat 0 1; stat -c '%a %u %g' 0; ls | wc -l";
    let request = shell(script).secret("first\n").secret("second\n");
    assert_eq!(vm.run(&request).out, "first\nsecond\n400 0 0\n2\n");
    assert_eq!(vm.shell("wc -c </dev/hm-vm-secrets/0"), "0\n");
    // They are another user's, who sees them where they are mounted.
    let other = shell("cat /dev/hm-vm-secrets/0").user("65534").secret("x");
    assert_eq!(vm.run(&other).kind(), ReportKind::Exited(1));
    assert_eq!(
        vm.shell("stat -c '%a %u %g' /dev/hm-vm-secrets/0"),
        "400 65534 65534\n"
    );
}

#[test]
fn a_secret_that_has_no_file_keeps_the_command_from_running() {
    let mut vm = require!(Container::start());
    let many = shell("touch /ran").secret("a").secret("b").secret("c");
    let expected = ReportKind::Secret { index: 2, errno: 2 };
    assert_eq!(vm.run(&many).kind(), expected);
    // One that was put there by a command is not written through.
    vm.shell("touch /disk; ln -sf /disk /dev/hm-vm-secrets/1");
    let expected = ReportKind::Secret {
        index: 1,
        errno: 40,
    };
    let two = shell("touch /ran").secret("a").secret("b");
    assert_eq!(vm.run(&two).kind(), expected);
    assert_eq!(
        vm.shell("wc -c </disk; ls / | grep -c ran || true"),
        "0\n0\n"
    );
}

#[test]
fn caches_become_the_users() {
    let mut vm = require!(Container::start());
    vm.shell("mkdir -p /cache/inner");
    let own = |user: &str| {
        let request = shell("stat -c %u /cache /cache/inner").user(user);
        request.owned("/cache").owned("/not/there")
    };
    assert_eq!(vm.run(&own("65534")).out, "65534\n0\n");
    assert_eq!(vm.run(&own("0")).out, "65534\n0\n");
}

#[test]
fn long_commands_come_as_a_file() {
    let mut vm = require!(Container::start());
    let long = format!("{}exit 9", "# \n".repeat(1 << 19));
    assert_eq!(vm.run(&shell(&long)).kind(), ReportKind::Exited(9));
    assert_eq!(
        vm.run(&shell(&long).user("65534")).kind(),
        ReportKind::Exited(9)
    );
    let arguments = (0..16).map(|_| "x".repeat(64 << 10));
    let argv = ["/bin/sh", "-c", "echo $#"].map(str::to_owned).into_iter();
    let ended = vm.run(&Request::new(argv.chain(arguments)));
    assert_eq!(ended.out, "15\n");
}

#[test]
fn working_directories_are_entered_or_made() {
    let mut vm = require!(Container::start());
    let in_directory = |path: &str, make| shell("pwd; stat -c %a .").working_directory(path, make);
    assert_eq!(vm.run(&in_directory("/etc", false)).out, "/etc\n755\n");
    let missing = vm.run(&in_directory("/a/b/c", false));
    assert_eq!(
        (missing.kind(), missing.out.as_str()),
        (ReportKind::WorkingDirectory(2), "")
    );
    assert_eq!(vm.run(&in_directory("/a/b/c", true)).out, "/a/b/c\n755\n");
    assert_eq!(vm.run(&in_directory("/etc/", true)).out, "/etc\n755\n");
    let file = vm.run(&in_directory("/etc/passwd", true));
    assert_eq!(file.kind(), ReportKind::WorkingDirectory(20));
    assert_eq!(vm.shell("pwd"), "/\n");
}

#[test]
fn shared_memory_is_empty_after_a_command() {
    let mut vm = require!(Container::start());
    vm.shell(
        "cd /dev/shm; echo x >a; mkdir -p b/c/d; echo y >b/c/d/e; ln -s /etc f; mkfifo g; \
         i=0; while [ $i -lt 3000 ]; do mkdir d; cd d; i=$((i+1)); done; echo deep >file",
    );
    assert_eq!(vm.shell("ls -A /dev/shm; ls /etc | grep -c passwd"), "1\n");
}

#[test]
fn removal_follows_no_links() {
    let mut vm = require!(Container::start());
    let root = |name: &str| vm.root.join(name);
    for directory in ["tree/full", "tree/empty/inner", "outside"] {
        fs::create_dir_all(root(directory)).expect("made");
    }
    for file in ["tree/file", "tree/full/kept", "outside/kept"] {
        fs::write(root(file), "").expect("written");
    }
    symlink("/outside", root("tree/link")).expect("link");
    symlink("/outside", root("base")).expect("link");
    let paths = [
        "file",
        "missing/deep",
        "full",
        "empty/inner",
        "empty",
        "link/kept",
        "file/below",
    ];
    let mut remove = |base: &str, paths: &[&str]| {
        let nonce = vm.nonce();
        vm.send(&remove_frame(&nonce, base, paths).expect("a frame"));
        vm.end(&nonce).kind()
    };
    assert_eq!(remove("/tree", &paths), ReportKind::Done(0));
    for refused in [
        "../outside/kept",
        "full/../full/kept",
        "/outside/kept",
        "",
        ".",
    ] {
        assert_eq!(
            remove("/tree", &[refused]),
            ReportKind::Done(22),
            "{refused:?}"
        );
    }
    assert_eq!(remove("/nowhere", &["x"]), ReportKind::Done(0));
    // A link itself is a file as others are.
    assert_eq!(remove("/tree", &["link"]), ReportKind::Done(0));
    let left = vm.shell("cd /; find tree outside | sort");
    assert_eq!(
        left,
        "outside\noutside/kept\ntree\ntree/full\ntree/full/kept\n"
    );
}

#[test]
fn localhost_has_a_name_and_what_commands_write_there_does_not_last() {
    let mut vm = require!(Container::start());
    let hosts = vm.root.join("etc/hosts");
    let _ = fs::remove_file(&hosts);
    let usual = vm.shell("cat /etc/hosts");
    assert!(usual.contains("127.0.0.1\tlocalhost\n"), "{usual}");
    assert_eq!(
        vm.shell("echo 127.0.0.1 other >>/etc/hosts; tail -n 1 /etc/hosts"),
        "127.0.0.1 other\n"
    );
    assert_eq!(vm.shell("cat /etc/hosts"), usual);
    // The image's own lines stay, and what is no file is not written through.
    fs::write(&hosts, "127.0.0.1 localhost own\n").expect("written");
    assert_eq!(
        vm.shell("cat /etc/hosts; rm /etc/hosts; ln -s /victim /etc/hosts"),
        "127.0.0.1 localhost own\n"
    );
    assert_eq!(vm.shell("ls /victim 2>/dev/null | wc -l"), "0\n");
}
