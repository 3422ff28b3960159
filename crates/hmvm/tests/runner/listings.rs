//! `snapshot`, `image`, `doctor` and `completions`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;

use hm_vm_testkit::require;
use serde_json::{Value, json};

use crate::env::TestEnv;

/// Runs a command under `exec`, and gives its snapshot.
#[track_caller]
pub(crate) fn snapshot(env: &TestEnv, arguments: &[&str]) -> String {
    let all = [&["exec", "--json"], arguments].concat();
    env.result(&all)["snapshot"]
        .as_str()
        .expect("a snapshot")
        .to_owned()
}

#[test]
fn snapshots_are_listed_compared_and_removed() {
    let env = require!(TestEnv::machine());
    let one = snapshot(
        &env,
        &["--", "mkdir /data && echo 1 > /data/a && echo 1 > /data/b"],
    );
    let two = snapshot(
        &env,
        &[
            "--from",
            &one,
            "--",
            "echo 2 > /data/a; rm /data/b; echo 2 > /data/c",
        ],
    );

    let list = env.json(["snapshot", "ls", "--json"]);
    let ids: Vec<&str> = list
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|item| item["id"].as_str())
        .collect();
    assert_eq!(ids, [two.as_str(), one.as_str()], "newest first");
    assert_eq!(
        (&list[0]["parent"], &list[0]["depth"]),
        (&json!(one), &json!(2))
    );
    let table = env.hmvm(["snapshot", "ls"]).success().stdout;
    assert!(table.starts_with("ID            FROM"), "{table}");
    assert!(
        table.contains(&two[..12]) && !table.contains('\u{1b}'),
        "{table}"
    );

    let diff = env
        .hmvm(["snapshot", "diff", &one[..10], &two[..10]])
        .success()
        .stdout;
    assert_eq!(diff, "C /data/a\nD /data/b\nA /data/c\n");
    let diff = env.json(["snapshot", "diff", "--json", &one, &two]);
    assert_eq!(diff[1], json!({ "kind": "deleted", "path": "/data/b" }));
    let run = env.hmvm(["snapshot", "diff", "--exit-code", &one, &two]);
    assert_eq!(run.code, 1);
    assert_eq!(
        env.hmvm(["snapshot", "diff", "--exit-code", &one, &one])
            .success()
            .stdout,
        ""
    );

    let tree = env.hmvm(["snapshot", "tree"]).success().stdout;
    assert_eq!(tree.lines().count(), 2, "{tree}");
    assert!(
        tree.lines()
            .nth(1)
            .is_some_and(|line| line.starts_with(&format!("↳ {}", &two[..12]))),
        "{tree}"
    );
    let info = env.json(["snapshot", "inspect", "--json", &two[..10]]);
    assert_eq!(info["id"], json!(two));
    assert!(
        env.hmvm(["snapshot", "inspect", &two])
            .success()
            .stdout
            .contains("depth")
    );

    assert_eq!(
        env.hmvm(["snapshot", "cat", &format!("{one}:/data/b")])
            .success()
            .stdout,
        "1\n"
    );
    let run = env
        .hmvm(["snapshot", "cat", &format!("{two}:/data/b")])
        .exits_with(125);
    assert!(
        run.stderr.starts_with("error: ") && run.stderr.contains("/data/b"),
        "{}",
        run.stderr
    );

    env.hmvm(["snapshot", "rm", &one[..10]]).success();
    assert_eq!(
        env.json(["snapshot", "ls", "--json"])
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    // The child stays whole, and the command whose snapshot is gone runs again.
    let run = env.hmvm(["exec", "-q", "--from", &two, "--", "cat /data/a /data/c"]);
    assert_eq!(run.success().stdout, "2\n2\n");
}

#[test]
fn files_come_out_safely() {
    let env = require!(TestEnv::machine());
    let commands = "mkdir -p /out/sub && cd /out && echo text > file && echo deep > sub/deep \
        && ln -s /etc/passwd absolute && ln -s ../../../../secret relative \
        && cp /bin/true suid && chmod 4755 suid && mkfifo fifo";
    let id = snapshot(&env, &["--", commands]);
    let secret = env.write("secret", "of the host");
    env.hmvm(["snapshot", "cp", &format!("{id}:/out/file"), "copy"])
        .success();
    assert_eq!(
        fs::read_to_string(env.path().join("copy")).expect("the copy"),
        "text\n"
    );
    env.hmvm(["snapshot", "cp", &format!("{id}:/out"), "."])
        .success();
    let out = env.path().join("out");
    assert_eq!(
        fs::read_to_string(out.join("sub/deep")).expect("a copy"),
        "deep\n"
    );
    let suid = fs::metadata(out.join("suid")).expect("a copy");
    assert_eq!(
        suid.permissions().mode() & 0o7000,
        0,
        "no set-user-id bit comes out"
    );
    assert_eq!(suid.uid(), rustix::process::getuid().as_raw());
    // A link in the way of a copy is not followed.
    fs::create_dir_all(env.path().join("trap/out/sub")).expect("directories");
    symlink(&secret, env.path().join("trap/out/file")).expect("a link");
    let run = env.hmvm([
        "snapshot",
        "cp",
        &format!("{id}:/out/file"),
        "trap/out/file",
    ]);
    assert_eq!(
        fs::read_to_string(&secret).expect("the secret"),
        "of the host",
        "{run:?}"
    );
}

#[test]
fn images_are_made_used_and_removed() {
    let env = require!(TestEnv::machine());
    let root = env.path().join("root");
    fs::create_dir_all(root.join("bin")).expect("directories");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for name in ["sh", "cat", "ls", "id"] {
        symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
    env.write("root/etc/name", "little\n");
    env.hmvm(["image", "import", "root", "little"]).success();
    let archive = env.path().join("root.tar.gz");
    let tar = Command::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-czf")
        .arg(&archive)
        .arg(".")
        .status();
    assert!(tar.expect("tar runs").success());
    env.hmvm(["image", "import", "root.tar.gz", "packed"])
        .success();

    for image in ["little", "packed"] {
        let run = env.hmvm(["exec", "-q", "--image", image, "--", "cat /etc/name; id -u"]);
        assert_eq!(run.success().stdout, "little\n0\n", "{image}");
    }
    let list = env.json(["image", "ls", "--json"]);
    let names: Vec<&str> = list
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|image| image["name"].as_str())
        .collect();
    assert_eq!(names, ["host", "little", "packed"]);
    assert!(
        env.hmvm(["image", "ls"])
            .success()
            .stdout
            .contains("little")
    );
    let info = env.json(["image", "inspect", "little", "--json"]);
    assert!(
        info["digest"].is_string() && info["bytes"].as_u64() > Some(100_000),
        "{info}"
    );

    // A snapshot does not need the name of its image.
    let id = snapshot(&env, &["--image", "little", "--", "echo more > /more"]);
    env.hmvm(["image", "rm", "little"]).success();
    let run = env.hmvm(["exec", "-q", "--from", &id, "--", "cat /more /etc/name"]);
    assert_eq!(run.success().stdout, "more\nlittle\n");
    let run = env
        .hmvm(["image", "rm", "packed", "little"])
        .exits_with(125);
    assert!(
        run.stderr.contains("\"little\" not found"),
        "{}",
        run.stderr
    );
    assert_eq!(
        env.json(["image", "ls", "--json"]).as_array().map(Vec::len),
        Some(2),
        "nothing was removed"
    );
}

#[test]
fn the_doctor_examines_and_changes_nothing() {
    let env = TestEnv::new();
    let run = env.hmvm(["doctor", "--json"]);
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    assert!(!checks.is_empty());
    for check in checks {
        assert!(
            matches!(check["state"].as_str(), Some("ok" | "weak" | "missing")),
            "{check}"
        );
    }
    assert_eq!(run.code == 0, report["usable"] == true);
    assert!(!env.store().exists(), "looking makes no store");
    let text = env.hmvm(["doctor"]);
    assert!(
        text.stdout.contains("nothing is left over"),
        "{}",
        text.stdout
    );
    assert!(!text.stdout.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn completions_name_the_commands() {
    let env = TestEnv::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = env.hmvm(["completions", shell]).success().stdout;
        for word in ["snapshot", "explain", "keep-failed"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}
