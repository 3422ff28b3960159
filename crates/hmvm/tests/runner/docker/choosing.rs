//! Which backend is taken, and why.

use std::path::Path;
use std::process::Command;

use hm_vm_testkit::engines::IMAGE;
use hm_vm_testkit::privilege::{need_program, need_root};
use hm_vm_testkit::require;
use hm_vm_testkit::skip::Skip;

use super::support::{Docked, name_daemons};
use crate::env::TestEnv;

/// The program where the sandbox cannot work: a part of `/proc` is covered, as in a container.
fn without_sandbox(inner: &Command) -> Result<Command, Skip> {
    need_root()?;
    let mut command = Command::new(need_program("unshare")?);
    command
        .args([
            "--mount",
            "--",
            "sh",
            "-c",
            "mount -t tmpfs none /proc/bus && exec \"$0\" \"$@\"",
        ])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear()
        .current_dir(inner.get_current_dir().unwrap_or(Path::new("/")));
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    Ok(command)
}

#[test]
fn without_any_backend_all_reasons_are_told() {
    let env = TestEnv::new();
    let mut command = env.command(["exec", "--", "true"]);
    name_daemons(&mut command, None);
    let run = env.run(&mut require!(without_sandbox(&command)));
    let told = run.exits_with(125).stderr;
    assert!(
        told.starts_with("error: no backend works here: sandbox: proc in a VM: "),
        "{told}"
    );
    for part in [
        "; docker: ",
        "; podman: ",
        "/nonexistent/socket",
        "hint: hmvm doctor says",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // What can be looked at without a VM still can.
    let mut command = env.command(["cache", "ls"]);
    name_daemons(&mut command, None);
    env.run(&mut require!(without_sandbox(&command))).success();
}

#[test]
fn where_the_sandbox_does_not_work_docker_is_taken_and_it_is_said_why() {
    let docked = require!(Docked::new());
    let command = docked.command(&["exec", "--image", IMAGE, "--", "echo there"]);
    let run = docked.env.run(&mut require!(without_sandbox(&command)));
    let run = run.success();
    assert_eq!(run.stdout, "there\n");
    let told = "note: VMs are isolated by docker; sandbox: proc in a VM: ";
    assert!(run.stderr.starts_with(told), "{}", run.stderr);
    let refused = docked.hmvm(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&refused.stdout).expect("JSON");
    assert_eq!(report["daemons"][0]["state"], "ok", "{report}");
}

#[test]
fn a_daemon_that_is_not_there_is_no_fault_where_the_sandbox_works() {
    let env = require!(TestEnv::machine());
    let mut command = env.command(["doctor"]);
    name_daemons(&mut command, None);
    let healthy = env.run(&mut command).success();
    assert!(healthy.stdout.contains("absent"), "{}", healthy.stdout);
    let mut command = env.command(["exec", "--backend", "docker", "--image", "x", "--", "true"]);
    name_daemons(&mut command, None);
    let refused = env.run(&mut command).exits_with(125);
    assert!(
        refused.stderr.contains("/nonexistent/socket"),
        "{refused:?}"
    );
}

#[test]
fn the_configuration_chooses_where_nobody_else_does() {
    let docked = require!(Docked::new());
    let config = docked.env.write("config.toml", "backend = \"docker\"\n");
    let run = |arguments: &[&str]| {
        let mut command = docked.command(arguments);
        docked.env.run(command.env("HMVM_CONFIG", &config))
    };
    let host = run(&["exec", "--", "true"]).exits_with(125);
    assert!(host.stderr.contains("docker has no image host"), "{host:?}");
    docked.env.write("config.toml", "backend = \"dokker\"\n");
    let wrong = run(&["exec", "--", "true"]).exits_with(125);
    assert_eq!(
        wrong.stderr,
        "error: the configuration's backend \"dokker\" is not known\n\
         hint: this version has: auto, sandbox, docker, podman\n"
    );
}
