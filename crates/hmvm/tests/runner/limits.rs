//! Limits and networks, as a command in a VM meets them.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use hm_vm_testkit::require;
use hm_vm_testkit::skip::Skip;

use crate::env::{Run, TestEnv};

/// A run that was not refused for what this machine lacks.
fn had(run: Run) -> Result<Run, Skip> {
    let lacks = |words: &str| run.code == 125 && run.stderr.contains(words);
    let network = "network policy \"outbound\" is not supported";
    if lacks("limit cannot be enforced") || lacks("is not available") || lacks(network) {
        return Err(Skip::new(run.stderr));
    }
    Ok(run)
}

#[test]
fn a_command_that_takes_too_much_memory_is_told_so() {
    let env = require!(TestEnv::machine());
    let hungry = "x=$(head -c 300000000 /dev/zero | tr '\\0' a); echo ${#x}";
    let run = env.hmvm(["exec", "--memory", "64MiB", "--", hungry]);
    let run = require!(had(run)).exits_with(125);
    let talk: Vec<&str> = run.stderr.lines().collect();
    // The guest's shell may have a word of its own before.
    assert_eq!(
        &talk[talk.len() - 2..],
        [
            "error: the command exceeded its memory limit: the kernel killed a process of it at 64 MiB",
            "hint: give it more: --memory"
        ]
    );
    assert_eq!(
        env.json(["snapshot", "ls", "--json"]),
        serde_json::json!([])
    );
    let modest = ["exec", "-q", "--memory", "64MiB", "--", "echo fits"];
    assert_eq!(env.hmvm(modest).success().stdout, "fits\n");
}

#[test]
fn processes_and_processors_are_counted() {
    let env = require!(TestEnv::machine());
    let many = "i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i+1)); done; echo all";
    let run = require!(had(env.hmvm(["exec", "--pids", "8", "--", many])));
    assert!(run.code != 0 && run.stdout.is_empty(), "{run:?}");
    let run = env.hmvm(["exec", "-q", "--pids", "64", "--", many]);
    assert_eq!(run.success().stdout, "all\n");
    let run = require!(had(
        env.hmvm(["exec", "-q", "--cpus", "1", "--", "echo one"])
    ));
    assert_eq!(run.success().stdout, "one\n");
}

#[test]
fn a_disk_has_the_size_that_was_asked_for() {
    let env = require!(TestEnv::machine());
    let command = "fallocate -l 100M /fits && echo fits; fallocate -l 1100M /big || echo full; \
        [ $(df -Pk / | awk 'END { print $2 }') -le 1048576 ] && echo small";
    let run = env.hmvm(["exec", "--cache", "off", "--disk", "1GiB", "--", command]);
    let run = require!(had(run)).success();
    assert_eq!(run.stdout, "fits\nfull\nsmall\n", "{}", run.stderr);
    assert!(
        run.stderr.contains("No space left on device"),
        "{}",
        run.stderr
    );
}

#[test]
fn protections_are_given_up_by_name() {
    let env = require!(TestEnv::machine());
    for name in ["seccomp", "id-map", "masked-paths"] {
        let run = env.hmvm([
            "exec",
            "-q",
            "--cache",
            "off",
            "--allow-weaker",
            name,
            "--",
            "echo ok",
        ]);
        assert_eq!(run.success().stdout, "ok\n", "{name}");
    }
}

#[test]
fn networks_reach_what_they_say() {
    let env = require!(TestEnv::machine());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that is gone already is no matter.
            let _gone = stream.write_all(b"hello\n");
        }
    });
    let ask = format!(
        "bash -c 'cat < /dev/tcp/127.0.0.1/{port}' 2>/dev/null || echo nobody; \
         grep -c : /proc/net/dev; awk '$2 == \"00000000\"' /proc/net/route | wc -l; \
         grep -c nameserver /etc/resolv.conf; true"
    );
    let run = |network: &str| {
        let run = env.hmvm(["exec", "--cache", "off", "--network", network, "--", &ask]);
        had(run).map(|run| {
            let run = run.success();
            run.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
        })
    };
    let none = require!(run("none"));
    assert_eq!(
        none[..3],
        ["nobody", "1", "0"],
        "only the loopback, and not this machine's"
    );
    let host = require!(run("host"));
    assert_eq!(host[0], "hello", "{host:?}");
    let outbound = require!(run("outbound"));
    assert_eq!(
        outbound[0], "nobody",
        "this machine's own loopback is not outside"
    );
    if host[2] != "0" {
        assert_eq!(outbound[2], "1", "a default route: {outbound:?}");
        assert_eq!(outbound[1], "2", "the loopback and one more: {outbound:?}");
    }
    assert_eq!(outbound[3], host[3], "name servers");
}
