//! Commands and pipelines in Docker.

use hm_vm_testkit::engines::IMAGE;
use hm_vm_testkit::require;
use serde_json::{Value, json};

use super::support::Docked;
use crate::env::TestEnv;

#[test]
fn a_command_is_skipped_the_next_time_and_forked_from() {
    let docked = require!(Docked::new());
    let exec = [
        "exec",
        "--json",
        "--image",
        IMAGE,
        "--",
        "echo said; echo kept > /f",
    ];
    let first = TestEnv::last_event(&docked.docked(&exec).success());
    assert_eq!(first["cached"], false);
    let second = docked.docked(&exec).success();
    assert!(second.stdout.contains("said"), "{second:?}");
    let second = TestEnv::last_event(&second);
    assert_eq!(
        (&second["cached"], &second["snapshot"]),
        (&json!(true), &first["snapshot"])
    );
    let id = first["snapshot"].as_str().expect("an id");
    let short = &id.strip_prefix("sha256:").expect("a digest")[..12];

    let forked = docked.docked(&["exec", "--cache", "off", "--from", short, "--", "cat /f"]);
    assert_eq!(forked.success().stdout, "kept\n");
    let cat = docked.docked(&["snapshot", "cat", &format!("{short}:/f")]);
    assert_eq!(cat.success().stdout, "kept\n");
    docked
        .docked(&["snapshot", "cp", &format!("{short}:/f"), "brought"])
        .success();
    let brought = std::fs::read_to_string(docked.env.path().join("brought"));
    assert_eq!(brought.expect("a file"), "kept\n");

    // The sandbox's keys and snapshots are others.
    let of_sandbox = docked.hmvm(&["cache", "ls", "--backend", "sandbox", "--json"]);
    assert_eq!(of_sandbox.success().stdout.trim(), "[]");
    let keys = docked.json(&["cache", "ls", "--json"]);
    assert_eq!(keys[0]["snapshot"], first["snapshot"], "{keys}");
    let snapshots = docked.json(&["snapshot", "ls", "--json"]);
    let ids: Vec<&Value> = snapshots
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| &it["id"])
        .collect();
    assert!(ids.contains(&&first["snapshot"]), "{snapshots}");
    let refused = docked
        .docked(&["snapshot", "diff", short, short])
        .exits_with(125);
    assert!(refused.stderr.contains("hmvm snapshot copy"), "{refused:?}");

    let key = keys[0]["key"].as_str().expect("a key");
    docked.docked(&["cache", "rm", key]).success();
    for other in docked
        .json(&["snapshot", "ls", "--json"])
        .as_array()
        .expect("a list")
    {
        docked
            .docked(&["snapshot", "rm", other["id"].as_str().expect("an id")])
            .success();
    }
    assert_eq!(docked.objects(), Vec::<String>::new());
}

#[test]
fn what_docker_does_not_have_is_told() {
    let docked = require!(Docked::new());
    let host = docked.docked(&["exec", "--", "true"]).exits_with(125);
    assert_eq!(
        host.stderr,
        "error: docker has no image host: this machine's own root is the sandbox's\n\
         hint: name an image: --image debian:bookworm on the command line, image = \"debian:bookworm\" in a pipeline\n"
    );
    let never = [
        "exec",
        "--pull",
        "never",
        "--image",
        "hm-vm-test-absent:1",
        "--",
        "true",
    ];
    let never = docked.docked(&never).exits_with(125);
    assert!(
        never.stderr.contains("docker pull hm-vm-test-absent:1"),
        "{never:?}"
    );
    let cache = [
        "exec",
        "--remote-cache",
        "r.example/c",
        "--image",
        IMAGE,
        "--",
        "true",
    ];
    let cache = docked.docked(&cache).exits_with(125);
    assert!(
        cache
            .stderr
            .contains("the docker backend has none to share"),
        "{cache:?}"
    );
    let unknown = docked
        .docked(&["exec", "--from", "abc123", "--", "true"])
        .exits_with(125);
    assert!(
        unknown.stderr.contains("snapshot abc123 not found"),
        "{unknown:?}"
    );
}

const PIPELINE: &str = r#"
[pipeline]
image = "IMAGE"
backend = "docker"

[steps.first]
run = "echo 1 > /first; echo x >> /kept/runs"
caches = { kept = "/kept" }

[steps.build]
from = "first"
inject = "src"
run = "cat /first part > out; wc -l < /kept/runs"
caches = { kept = "/kept" }
outputs = ["out"]

[steps.test]
from = "build"
run = "wget -q -O - http://web:8080/page; cat /run/secrets/TOKEN > /dev/null; echo $TOKEN_FILE"
secrets = ["TOKEN"]

[steps.test.services.web]
run = "mkdir /www; echo served > /www/page; exec httpd -f -p 8080 -h /www"
ready = { port = 8080 }

[steps.again]
from = "first"
run = "test -e /kept/second || { touch /kept/second; exit 7; }"
retries = 1
caches = { kept = "/kept" }
"#;

#[test]
fn a_pipeline_runs_with_all_that_steps_can_have() {
    let docked = require!(Docked::new());
    docked
        .env
        .write("hmvm.toml", PIPELINE.replace("IMAGE", IMAGE));
    docked.env.write("src/part", "2\n");
    let run = || {
        let mut command = docked.command(&["run", "--json"]);
        docked.env.run(command.env("TOKEN", "s3cret-token"))
    };
    let events = TestEnv::events(&run().success());
    let outputs: Vec<&Value> = events
        .iter()
        .filter_map(|event| event.get("line"))
        .collect();
    assert!(outputs.contains(&&json!("served")), "{events:?}");
    assert!(outputs.contains(&&json!("1")), "{events:?}");
    let brought = std::fs::read_to_string(docked.env.path().join("out"));
    assert_eq!(brought.expect("an output"), "1\n2\n");
    let again = events
        .iter()
        .filter(|event| event["event"] == "step_ended" && event["step"] == "again");
    assert!(again.count() >= 1, "{events:?}");

    let events = TestEnv::events(&run().success());
    let cached = events.iter().filter(|event| event["outcome"] == "cached");
    assert_eq!(cached.count(), 4, "{events:?}");
    let kept = docked
        .hmvm(&["cache", "dir", "ls", "--backend", "docker", "--json"])
        .success();
    let kept: Value = serde_json::from_str(&kept.stdout).expect("JSON");
    assert_eq!(kept[0]["name"], "kept", "{kept}");
}
