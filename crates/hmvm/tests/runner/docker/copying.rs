//! One snapshot, any isolation.

use hm_vm_testkit::engines::IMAGE;
use hm_vm_testkit::require;

use super::support::Docked;
use crate::env::TestEnv;

/// An image with an environment, a user and a working directory.
fn image(docked: &Docked) -> String {
    let docker = |arguments: &[&str]| docked.engine.docker_client(arguments).expect("docker");
    let container = docker(&["create", IMAGE, "sh"]);
    let changes = ["ENV GREETING=hello", "USER 1000", "WORKDIR /work"];
    let mut commit = vec!["commit"];
    for change in &changes {
        commit.extend(["--change", change]);
    }
    let name = format!("hm-vm-test-defaults:{}", std::process::id());
    commit.extend([container.as_str(), name.as_str()]);
    docker(&commit);
    docker(&["rm", &container]);
    name
}

#[test]
fn a_snapshot_goes_from_docker_to_the_sandbox_and_back() {
    let _machine = require!(TestEnv::machine());
    let docked = require!(Docked::new());
    let image = image(&docked);
    let made = "mkdir -p /work/d; ln -s d /work/l; echo of-docker > /step; touch /work/f; chmod 4755 /work/f";
    // The step runs as the image's user, who may not write there: a step before makes room.
    let root = format!("chmod 777 / /work 2>/dev/null; mkdir -p /work; chown 1000 /work; {made}");
    let first = docked
        .docked(&["exec", "--json", "--image", IMAGE, "--", &root])
        .success();
    let plain = TestEnv::last_event(&first)["snapshot"]
        .as_str()
        .expect("an id")
        .to_owned();

    let copied = docked
        .docked(&["snapshot", "copy", &plain, "--to", "sandbox"])
        .success();
    let here = copied.stdout.trim();
    let cat = "cat /step; ls -ln /work | tail -n +2 | cut -c1-10";
    let forked = [
        "exec",
        "--backend",
        "sandbox",
        "--json",
        "--from",
        here,
        "--",
    ];
    let step = format!("{cat}; echo of-sandbox >> /step");
    let forked = docked.hmvm(&[&forked[..], &[&step]].concat()).success();
    let seen = |run: &crate::env::Run| -> Vec<String> {
        let lines = TestEnv::events(run).into_iter();
        lines
            .filter_map(|event| Some(event.get("line")?.as_str()?.to_owned()))
            .collect()
    };
    assert_eq!(
        seen(&forked),
        ["of-docker", "drwxr-xr-x", "-rwsr-xr-x", "lrwxrwxrwx"]
    );
    let step = TestEnv::last_event(&forked)["snapshot"]
        .as_str()
        .expect("an id")
        .to_owned();

    // Without --backend, the one that has it is found.
    let back = docked
        .hmvm(&["snapshot", "copy", &step, "--to", "docker", "--json"])
        .success();
    let back: serde_json::Value = serde_json::from_str(&back.stdout).expect("JSON");
    let there = back["copy"].as_str().expect("an id");
    let last = docked
        .docked(&["exec", "--cache", "off", "--from", there, "--", cat])
        .success();
    assert_eq!(
        last.stdout,
        "of-docker\nof-sandbox\ndrwxr-xr-x\n-rwsr-xr-x\nlrwxrwxrwx\n"
    );

    // What the image says goes along, both ways.
    let prepared = ["exec", "--json", "--image", &image, "--", "true"];
    let prepared = TestEnv::last_event(&docked.docked(&prepared).success());
    let prepared = prepared["snapshot"].as_str().expect("an id").to_owned();
    let copied = docked
        .docked(&["snapshot", "copy", &prepared, "--to", "sandbox"])
        .success();
    let here = copied.stdout.trim().to_owned();
    let told = |run: crate::env::Run| run.success().stdout;
    let asked = "id -u; pwd; echo $GREETING";
    let in_sandbox = [
        "exec",
        "--backend",
        "sandbox",
        "--cache",
        "off",
        "--from",
        &here,
        "--",
        asked,
    ];
    assert_eq!(told(docked.hmvm(&in_sandbox)), "1000\n/work\nhello\n");
    let back = docked
        .hmvm(&["snapshot", "copy", &here, "--to", "docker"])
        .success();
    let there = back.stdout.trim();
    let in_docker = ["exec", "--cache", "off", "--from", there, "--", asked];
    assert_eq!(told(docked.docked(&in_docker)), "1000\n/work\nhello\n");
    assert_eq!(docked.env.leftovers(), serde_json::json!([]));
    assert!(docked.env.traces().is_empty(), "{:?}", docked.env.traces());
    docked
        .engine
        .docker_client(&["rmi", &image])
        .expect("docker rmi");
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let _machine = require!(TestEnv::machine());
    let docked = require!(Docked::new());
    let exec = ["exec", "--backend", "sandbox", "--json", "--", "true"];
    let made = TestEnv::last_event(&docked.hmvm(&exec).success());
    let id = made["snapshot"].as_str().expect("an id");
    let refused = docked
        .hmvm(&["snapshot", "copy", id, "--to", "docker"])
        .exits_with(125);
    assert!(
        refused.stderr.contains("stands on the image host"),
        "{refused:?}"
    );
    let same = docked
        .hmvm(&["snapshot", "copy", id, "--to", "sandbox"])
        .exits_with(125);
    assert!(
        same.stderr.contains("is kept by sandbox already"),
        "{same:?}"
    );
    // Who asks the wrong backend is told the right one.
    let wrong = docked
        .docked(&["exec", "--from", id, "--", "true"])
        .exits_with(125);
    assert!(
        wrong.stderr.contains("is kept by sandbox, not by docker"),
        "{wrong:?}"
    );
    assert!(wrong.stderr.contains("hmvm snapshot copy"), "{wrong:?}");
}
