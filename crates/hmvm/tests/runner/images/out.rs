//! Snapshots as images for others.

use std::process::Command;

use hm_vm_testkit::privilege::{need_program, need_root};
use hm_vm_testkit::registry::DockerDaemon;
use hm_vm_testkit::require;
use serde_json::Value;

use super::support::{Images, tool};

/// What the snapshot's command does above the image: every kind of thing that a layer can say.
const CHANGES: &str = "echo $GREETING > /greeting; rm /version; mkdir -p /kept/deep; echo new > /kept/deep/new; \
    rm -rf /old; mkdir /old; echo only > /old/only; ln /greeting /hard; ln -s greeting /soft; \
    chmod 1751 /kept; touch -d @1000000000 /kept/deep/new; mkfifo /pipe";

/// Tells all that `CHANGES` have made.
const TOLD: &str = "cat /greeting /hard /soft /kept/deep/new; ls /version 2>/dev/null; ls /old; \
    stat -c '%n %F %a %Y' /kept/deep/new /pipe; stat -c '%a %n' /kept; stat -c %h /greeting";

const EXPECTED: &str = "hello\nhello\nhello\nnew\nonly\n/kept/deep/new regular file 644 1000000000\n\
    /pipe fifo 644 1000000000\n1751 /kept\n2\n";

/// A registry with an image, and a snapshot above it.
struct Made {
    images: Images,
    snapshot: String,
}

fn made() -> Result<Made, hm_vm_testkit::skip::Skip> {
    let images = Images::new()?;
    let image = images.version("one");
    let tree = images.root.join("old");
    std::fs::create_dir(&tree).expect("a directory");
    std::fs::write(tree.join("gone"), "gone").expect("a file");
    image.add_tree(&tree, "/old").expect("a layer");
    image
        .configure(&["--config.env=GREETING=hello", "--config.workingdir=/tmp"])
        .expect("configured");
    image.push(&images.server, "base/image:1").expect("pushed");
    let name = images.name("base/image:1");
    let changes = format!("{CHANGES}; touch -d @1000000000 /pipe");
    let result = images
        .env
        .result(&["exec", "--json", "--image", &name, "--", &changes]);
    let snapshot = result["snapshot"].as_str().expect("an id").to_owned();
    Ok(Made { images, snapshot })
}

impl Made {
    /// Writes the snapshot out, and gives what is told of it.
    #[track_caller]
    fn export(&self, place: &str, more: &[&str]) -> Value {
        let mut arguments = vec!["snapshot", "export", &self.snapshot, place, "--json"];
        arguments.extend(more);
        self.images.env.json(arguments)
    }

    #[track_caller]
    fn push(&self, name: &str) -> Value {
        let name = self.images.name(name);
        self.images
            .env
            .json(["push", &self.snapshot, &name, "--json"])
    }

    #[track_caller]
    fn assert_told(&self, image: &str) {
        let told = self.images.sh(image, TOLD).success();
        assert_eq!(told.stdout, EXPECTED, "{image}");
        let place = self.images.sh(image, "pwd; echo $GREETING").success();
        assert_eq!(place.stdout, "/tmp\nhello\n", "{image}");
    }
}

#[test]
fn a_snapshot_comes_back_the_same() {
    let made = require!(made());
    let root = made.images.root.path().display().to_string();
    let told = made
        .images
        .env
        .hmvm([
            "exec",
            "--from",
            &made.snapshot,
            "--cache",
            "off",
            "--",
            TOLD,
        ])
        .success();
    assert_eq!(told.stdout, EXPECTED);
    for (name, place, more) in [
        ("layout", format!("oci:{root}/out:v1"), &[][..]),
        (
            "zstd",
            format!("oci:{root}/zstd:v1"),
            &["--compression", "zstd"][..],
        ),
        (
            "archive",
            format!("oci-archive:{root}/out.tar:app:1"),
            &[][..],
        ),
    ] {
        made.export(&place, more);
        let path = place.split(':').nth(1).expect("a path");
        made.images
            .env
            .hmvm(["image", "import", path, name])
            .success();
        made.assert_told(name);
    }
    made.push("app/image:1");
    let name = made.images.name("app/image:1");
    made.images.pull(&[&name]).success();
    made.assert_told(&name);
    let digest = made.images.inspect(&name)["digest"].clone();
    for image in ["layout", "zstd", "archive"] {
        assert_eq!(made.images.inspect(image)["digest"], digest, "{image}");
    }
}

#[test]
fn the_same_snapshot_gives_the_same_bytes() {
    let made = require!(made());
    let root = made.images.root.path().display().to_string();
    let one = made.export(&format!("oci:{root}/a:v1"), &[]);
    let two = made.export(&format!("oci:{root}/b:v1"), &[]);
    assert_eq!(one["manifest"], two["manifest"]);
    let pushed = made.push("app/image:1");
    assert_eq!(pushed["manifest"], one["manifest"]);
    // The same once more: there is nothing that the registry lacks.
    let again = made.push("app/image:2");
    assert_eq!(again["manifest"], one["manifest"]);
    let stored = |requests: &[hm_vm_testkit::registry::Request]| {
        requests.iter().filter(|one| one.stored_blob()).count()
    };
    let requests = made.images.server.requests().expect("a log");
    let before = stored(&requests);
    made.push("app/image:3");
    let after = made.images.server.requests().expect("a log");
    assert_eq!(stored(&after), before);
}

#[test]
fn only_the_layers_above_the_image_travel_to_its_registry() {
    let made = require!(made());
    let before = made.images.server.blobs().expect("blobs");
    made.push("base/image:2");
    let after = made.images.server.blobs().expect("blobs");
    let new: u64 = after
        .iter()
        .filter(|digest| !before.contains(digest))
        .map(|digest| {
            let file = made.images.server.blob(digest);
            std::fs::metadata(file).expect("a blob").len()
        })
        .sum();
    // busybox alone is more than that.
    assert!(new < 100_000, "{new} bytes of {after:?}");
}

#[test]
fn others_accept_the_image() {
    let made = require!(made());
    made.push("app/image:1");
    let name = made.images.name("app/image:1");
    let inspected = tool(Command::new("skopeo").args([
        "inspect",
        "--tls-verify=false",
        &format!("docker://{name}"),
    ]));
    let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!(inspected["Os"], "linux", "{inspected:#}");
    let config = tool(Command::new("skopeo").args([
        "inspect",
        "--config",
        "--tls-verify=false",
        &format!("docker://{name}"),
    ]));
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["config"]["WorkingDir"], "/tmp", "{config:#}");
    let env = config["config"]["Env"].to_string();
    assert!(env.contains("GREETING=hello"), "{config:#}");
    let labels = config["config"]["Labels"].to_string();
    assert!(labels.contains(&made.snapshot), "its lineage: {config:#}");
    let root = made.images.root.path().display().to_string();
    made.export(&format!("oci:{root}/out:v1"), &[]);
    let unpacked = format!("{root}/unpacked");
    tool(Command::new("umoci").args([
        "unpack",
        "--rootless",
        "--image",
        &format!("{root}/out:v1"),
        &unpacked,
    ]));
    let read = std::fs::read_to_string(format!("{unpacked}/rootfs/kept/deep/new"));
    assert_eq!(read.expect("a file"), "new\n");
    assert!(!std::path::Path::new(&format!("{unpacked}/rootfs/version")).exists());
}

#[test]
fn docker_runs_the_image() {
    require!(need_root());
    require!(DockerDaemon::need());
    let made = require!(made());
    made.push("app/image:1");
    let name = made.images.name("app/image:1");
    let daemon = DockerDaemon::start().expect("a daemon");
    daemon.docker(&["pull", "--quiet", &name]).expect("pulled");
    let archive = made.images.root.join("app.tar").display().to_string();
    made.export(&format!("oci-archive:{archive}:app:1"), &[]);
    daemon
        .docker(&["load", "--quiet", "--input", &archive])
        .expect("loaded");
    for image in [name.as_str(), "app:1"] {
        let told = daemon
            .docker(&[
                "run",
                "--rm",
                "--network=none",
                "--ulimit=nofile=1024:1024",
                "--ulimit=nproc=1024:1024",
                image,
                "/bin/sh",
                "-c",
                TOLD,
            ])
            .expect("run");
        assert_eq!(told, EXPECTED.trim_end(), "{image}");
        let place = daemon
            .docker(&[
                "run",
                "--rm",
                "--network=none",
                "--ulimit=nofile=1024:1024",
                "--ulimit=nproc=1024:1024",
                image,
                "/bin/sh",
                "-c",
                "pwd; echo $GREETING",
            ])
            .expect("run");
        assert_eq!(place, "/tmp\nhello", "{image}");
    }
}

#[test]
fn podman_runs_the_image() {
    require!(need_root());
    require!(need_program("podman"));
    let made = require!(made());
    made.push("app/image:1");
    let name = made.images.name("app/image:1");
    let root = made.images.root.path().display().to_string();
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command
            .args(["--root", &format!("{root}/podman")])
            .args(["--runroot", &format!("{root}/podman-run")])
            .args([
                "--storage-driver=vfs",
                "--cgroup-manager=cgroupfs",
                "--events-backend=file",
            ])
            .args(arguments);
        tool(&mut command)
    };
    podman(&["pull", "--quiet", "--tls-verify=false", &name]);
    let told = podman(&[
        "run",
        "--rm",
        "--network=none",
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=1024:1024",
        &name,
        "/bin/sh",
        "-c",
        TOLD,
    ]);
    assert_eq!(told, EXPECTED);
}

#[test]
fn named_caches_travel() {
    let images = require!(Images::new());
    images.push("one", "some/image:tag");
    let name = images.name("some/image:tag");
    let file = format!(
        "[pipeline]\nimage = \"{name}\"\n[steps.a]\nrun = \"cat /cache/f; echo more >> /cache/f; wc -l < /cache/f\"\n\
         caches = {{ mine = \"/cache\" }}\ncache = \"off\"\n"
    );
    images.env.write("project/hmvm.toml", &file);
    let run = |env: &crate::env::TestEnv| {
        let mut command = env.command(["run", "--plain"]);
        command.current_dir(env.path().join("project"));
        env.run(&mut command).success()
    };
    run(&images.env);
    let place = images.name("team/caches:mine");
    images
        .env
        .hmvm(["cache", "export", "mine", &place])
        .success();
    let other = require!(Images::new());
    other.env.write("project/hmvm.toml", &file);
    other
        .env
        .hmvm(["cache", "import", "mine", &place])
        .success();
    let told = run(&other.env);
    assert!(
        told.stdout.contains("more") || told.stderr.contains("more"),
        "{told:?}"
    );
}
