//! Guests and hosts that do what they should not.

use hm_vm_sys::helper::{ReportKind, Request, signal_frame};
use hm_vm_testkit::require;

use crate::container::{Container, shell};

fn frame(kind: u8, length: u32, payload: &[u8]) -> Vec<u8> {
    [&[kind], length.to_le_bytes().as_slice(), payload].concat()
}

#[test]
fn garbage_ends_the_helper_and_does_not_hang_it() {
    let nonce = [7; 32];
    let garbage = [
        frame(b'?', 0, &[]),
        frame(b'R', u32::MAX, &[]),
        frame(b'R', (32 << 20) + 1, &[]),
        frame(b'I', (64 << 10) + 1, &[]),
        frame(b'R', 0, &[]),
        frame(b'D', 31, &nonce[..31]),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for bytes in garbage {
        let mut vm = require!(Container::start());
        vm.send(&bytes);
        assert_eq!(vm.exit().code(), Some(124), "{bytes:?}");
    }
    // In the middle of a command, and in place of what a command can be sent.
    for bytes in [
        frame(b'?', 0, &[]),
        frame(b'P', 0, &[]),
        frame(b'S', 1, &[9]),
        signal_frame(65),
    ] {
        let mut vm = require!(Container::start());
        vm.begin(&shell("sleep 1000"));
        vm.send(&bytes);
        assert_eq!(vm.exit().code(), Some(124), "{bytes:?}");
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut vm = require!(Container::start());
    let c = [b"c\x07\0\0\0/bin/sh\0".as_slice()].concat();
    let bad: &[&[u8]] = &[
        b"",
        b"c",
        b"c\x07\0\0\0/bin/sh",
        b"c\x07\0\0\0/bin/shX",
        b"c\xff\xff\xff\xff/bin/sh\0",
        b"c\x07\0\0\0/bi\0/sh\0",
        &[c.as_slice(), b"?\0\0\0\0\0"].concat(),
        &[c.as_slice(), b"t\x01\0\0\0x\0"].concat(),
        &[c.as_slice(), b"o\x01\0\0\0\0\0"].concat(),
        &[c.as_slice(), b"trailing"].concat(),
        b"u\x04\0\0\0root\0",
    ];
    for fields in bad {
        let nonce = vm.nonce();
        let payload = [nonce.bytes().as_slice(), fields].concat();
        let length = u32::try_from(payload.len()).expect("short");
        vm.send(&frame(b'R', length, &payload));
        assert_eq!(vm.end(&nonce).kind(), ReportKind::BadRequest, "{fields:?}");
    }
    for (kind, payload) in [
        (b'D', b"/x".as_slice()),
        (b'D', b"/x\0y"),
        (b'P', b"\0"),
        (b'P', b"123"),
    ] {
        let nonce = vm.nonce();
        let payload = [nonce.bytes().as_slice(), payload].concat();
        let length = u32::try_from(payload.len()).expect("short");
        vm.send(&frame(kind, length, &payload));
        assert_eq!(vm.end(&nonce).kind(), ReportKind::BadRequest, "{payload:?}");
    }
    assert_eq!(vm.shell("echo fine"), "fine\n");
}

#[test]
fn frames_may_come_byte_by_byte() {
    let mut vm = require!(Container::start());
    let nonce = vm.nonce();
    for byte in shell("echo fine").encode(&nonce).expect("a request") {
        vm.send(&[byte]);
    }
    assert_eq!(vm.end(&nonce).out, "fine\n");
}

#[test]
fn the_guest_cannot_reach_the_helper() {
    let mut vm = require!(Container::start());
    for command in [
        "readlink /proc/1/fd/1",
        "cat /proc/1/environ",
        "cat /proc/1/maps",
        "head -c 1 /proc/1/mem",
        "cat </proc/1/fd/0",
        "echo x >/proc/1/fd/1",
    ] {
        let ended = vm.run(&shell(command));
        assert_ne!(ended.kind(), ReportKind::Exited(0), "{command}: {ended:?}");
        assert_eq!(ended.out, "", "{command}");
    }
    // Only the standard streams are handed on; the last one is that of `ls` itself.
    assert_eq!(vm.shell("ls /proc/self/fd"), "0\n1\n2\n3\n");
    assert_eq!(vm.shell("readlink /proc/self/fd/0"), "/dev/null\n");
    // Signals to PID 1 do nothing.
    let kill =
        "for s in TERM HUP INT KILL STOP CHLD SEGV; do kill -$s 1; done; kill -KILL -1; echo no";
    let ended = vm.run(&shell(kill));
    assert!(matches!(ended.kind(), ReportKind::Exited(0)), "{ended:?}");
    assert_eq!(vm.shell("echo alive"), "alive\n");
}

#[test]
fn signals_are_as_by_default_in_a_command() {
    let mut vm = require!(Container::start());
    let masks = vm
        .run(&Request::new([
            "/bin/grep",
            "^Sig[BIC]",
            "/proc/self/status",
        ]))
        .out;
    assert_eq!(masks.lines().count(), 3, "{masks}");
    for line in masks.lines() {
        assert!(line.ends_with("0000000000000000"), "{masks}");
    }
}

#[test]
fn fake_marks_are_output() {
    let mut vm = require!(Container::start());
    let zeros = vm.run(&Request::new([
        "/bin/head",
        "-c",
        "100000",
        "/proc/self/mem",
    ]));
    assert_ne!(zeros.kind(), ReportKind::Exited(0));
    let nonce = vm.begin(&shell(
        "printf '\\0\\7\\7'; printf '\\0%0.s' 1 2 3; printf '\\0\\2' >&2",
    ));
    let ended = vm.end(&nonce);
    assert_eq!(
        (ended.out.as_str(), ended.err.as_str()),
        ("\0\x07\x07\0\0\0", "\0\x02")
    );
}
