//! `hmvm image pull`, and pulls that commands need.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use hm_vm_testkit::privilege::need_root;
use hm_vm_testkit::registry::{Fault, FaultProxy, Faults, RegistrySetup, Rule};
use hm_vm_testkit::require;

use super::support::Images;

#[test]
fn a_pulled_image_works_without_its_registry() {
    let mut images = require!(Images::new());
    images.push("one", "some/image:tag");
    let name = images.name("some/image:tag");
    images.pull(&[&name]).success();
    images.server.stop();
    assert_eq!(images.sh(&name, "cat /version").success().stdout, "one");
    let again = images.pull(&[&name]).success();
    assert!(again.stderr.contains("here already"), "{again:?}");
    let offline = images.pull(&["--refresh", &name]).exits_with(125);
    assert!(offline.stderr.contains("hint:"), "{offline:?}");
    assert_eq!(images.sh(&name, "cat /version").success().stdout, "one");
}

#[test]
fn a_command_pulls_what_it_needs() {
    let images = require!(Images::new());
    images.push("one", "some/image:tag");
    let name = images.name("some/image:tag");
    let never = images.env.hmvm([
        "exec",
        "--pull",
        "never",
        "--image",
        &name,
        "--",
        "cat /version",
    ]);
    never.exits_with(125);
    assert_eq!(images.sh(&name, "cat /version").success().stdout, "one");
    images.env.write(
        "project/hmvm.toml",
        format!("[pipeline]\nimage = \"{name}\"\n[steps.a]\nrun = \"cat /version\"\n"),
    );
    let mut run = images.env.command(["run", "-q"]);
    run.current_dir(images.env.path().join("project"));
    images.env.run(&mut run).success();
    let missing = images.name("no/such:image");
    let told = images.sh(&missing, "true").exits_with(125);
    assert!(told.stderr.contains("no/such"), "{told:?}");
}

#[test]
fn a_moved_tag_is_seen_when_it_is_asked_for() {
    let images = require!(Images::new());
    images.push("one", "some/image:tag");
    let name = images.name("some/image:tag");
    images.pull(&[&name]).success();
    let result = |image: &str| {
        let run = ["exec", "--json", "--image", image, "--", "cat /version"];
        images.env.result(&run)
    };
    let first = result(&name);
    let before = images.inspect(&name);

    images.push("two", "some/image:tag");
    images.pull(&[&name]).success();
    assert_eq!(images.inspect(&name)["digest"], before["digest"]);
    let same = result(&name);
    assert_eq!(same["key"], first["key"], "{same:#}");

    let moved = images.pull(&["--refresh", &name]).success();
    assert!(moved.stderr.contains("has moved"), "{moved:?}");
    assert_ne!(images.inspect(&name)["digest"], before["digest"]);
    let other = result(&name);
    assert_ne!(other["key"], first["key"], "{other:#}");
    assert_eq!(images.sh(&name, "cat /version").success().stdout, "two");
    let not_moved = images.pull(&["--refresh", &name]).success();
    assert!(not_moved.stderr.contains("not moved"), "{not_moved:?}");

    // The snapshot of the first one still works.
    let id = first["snapshot"].as_str().expect("an id");
    let run = images
        .env
        .hmvm(["exec", "--from", id, "--cache", "off", "--", "cat /version"]);
    assert_eq!(run.success().stdout, "one");
}

#[test]
fn layers_that_are_here_do_not_travel_again() {
    let images = require!(Images::new());
    let image = images.version("one");
    image.push(&images.server, "some/image:1").expect("pushed");
    images.add_file(&image, "more", "more");
    image.push(&images.server, "some/image:2").expect("pushed");
    images.pull(&[&images.name("some/image:1")]).success();
    let before = images.asked();
    let name = images.name("some/image:2");
    images.pull(&[&name]).success();
    let requests = images.server.requests().expect("a log");
    let blobs = requests[before..]
        .iter()
        .filter(|request| request.fetched_blob())
        .count();
    assert_eq!(blobs, 2, "the configuration and one layer: {requests:#?}");
    let told = images.sh(&name, "cat /version /more").success();
    assert_eq!(told.stdout, "onemore");
}

#[test]
fn docker_manifests_and_zstd_layers_are_pulled() {
    let images = require!(Images::new());
    let image = images.version("one");
    let push = |name: &str, options: &[&str]| {
        image
            .push_with(&images.server, name, options)
            .expect("pushed");
    };
    push("some/docker:1", &["--format=v2s2"]);
    push(
        "some/zstd:1",
        &["--dest-compress", "--dest-compress-format=zstd"],
    );
    let mut digests = Vec::new();
    for name in ["some/docker:1", "some/zstd:1"] {
        let name = images.name(name);
        images.pull(&[&name]).success();
        assert_eq!(images.sh(&name, "cat /version").success().stdout, "one");
        digests.push(images.inspect(&name)["manifest"].clone());
    }
    assert_ne!(digests[0], digests[1]);
}

#[test]
fn a_layer_whose_last_file_is_not_padded_is_whole() {
    let images = require!(Images::new());
    let image = images.version("one");
    // What umoci makes of a single file: an archive that ends with the file's last byte. Docker takes it.
    let file = images.root.join("single");
    fs::write(&file, "single").expect("a file");
    image.insert(&file, "/single").expect("a layer");
    image
        .push(&images.server, "some/image:tag")
        .expect("pushed");
    let name = images.name("some/image:tag");
    images.pull(&[&name]).success();
    let told = images.sh(&name, "cat /version /single").success();
    assert_eq!(told.stdout, "onesingle");
}

#[test]
fn environment_and_working_directory_are_the_images() {
    let images = require!(Images::new());
    let image = images.version("one");
    image
        .configure(&[
            "--config.env=GREETING=hello world",
            "--config.workingdir=/tmp/work",
            "--config.entrypoint=/bin/false",
        ])
        .expect("configured");
    images.add_file(&image, "more", "more");
    image
        .push(&images.server, "some/image:tag")
        .expect("pushed");
    let name = images.name("some/image:tag");
    let told = images
        .sh(&name, "echo $GREETING; pwd; echo $PATH")
        .success();
    assert_eq!(
        told.stdout,
        "hello world\n/tmp/work\n/usr/local/bin:/usr/bin:/bin\n"
    );
    let own = images.env.hmvm([
        "exec",
        "--image",
        &name,
        "-e",
        "GREETING=bye",
        "--workdir",
        "/",
        "--",
        "echo $GREETING; pwd",
    ]);
    assert_eq!(own.success().stdout, "bye\n/\n");
}

#[test]
fn the_user_is_the_images() {
    require!(need_root());
    let images = require!(Images::new());
    let image = images.version("one");
    image
        .configure(&["--config.user=1234:5678"])
        .expect("configured");
    image
        .push(&images.server, "some/image:tag")
        .expect("pushed");
    let told = images.sh(&images.name("some/image:tag"), "id -u; id -g");
    assert_eq!(told.success().stdout, "1234\n5678\n");
}

const WITH_PASSWORD: RegistrySetup = RegistrySetup {
    htpasswd: true,
    tls: false,
    read_only: false,
    delete: true,
};

/// "user:secret" and "user:wrong".
const RIGHT: &str = "dXNlcjpzZWNyZXQ=";
const WRONG: &str = "dXNlcjp3cm9uZw==";

fn auths(images: &Images, auth: &str) -> String {
    format!(
        r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#,
        images.server.address()
    )
}

#[test]
fn credentials_of_docker_and_podman_open_a_registry() {
    let images = require!(Images::with(WITH_PASSWORD));
    images.push("one", "some/image:tag");
    let name = images.name("some/image:tag");
    let refused = images.pull(&[&name]).exits_with(125);
    assert!(refused.stderr.contains("credentials"), "{refused:?}");
    let docker = "home/.docker/config.json";
    images.env.write(docker, auths(&images, WRONG));
    let refused = images.pull(&[&name]).exits_with(125);
    assert!(!refused.stderr.contains("wrong"), "{refused:?}");
    images.env.write(docker, auths(&images, RIGHT));
    images.pull(&[&name]).success();

    fs::remove_file(images.env.path().join(docker)).expect("a file");
    images.pull(&["--refresh", &name]).exits_with(125);
    images
        .env
        .write("run/containers/auth.json", auths(&images, RIGHT));
    let mut command = images.env.command(["image", "pull", "--refresh", &name]);
    command.env("XDG_RUNTIME_DIR", images.env.path().join("run"));
    images.env.run(&mut command).success();
    let mut command = images.env.command(["image", "pull", "--refresh", &name]);
    let file = images.env.path().join("run/containers/auth.json");
    command.env("REGISTRY_AUTH_FILE", file);
    images.env.run(&mut command).success();
}

#[test]
fn a_credential_helper_opens_a_registry() {
    let images = require!(Images::with(WITH_PASSWORD));
    images.push("one", "some/image:tag");
    let name = images.name("some/image:tag");
    let helper = images.env.write(
        "bin/docker-credential-test",
        "#!/bin/sh\nread -r server\necho \"$1 $server\" >> \"$HOME/asked\"\n\
         echo '{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"secret\"}'\n",
    );
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("a mode");
    let address = images.server.address();
    images.env.write(
        "home/.docker/config.json",
        format!(r#"{{"credHelpers":{{"{address}":"test"}}}}"#),
    );
    let mut command = images.env.command(["image", "pull", &name]);
    let path = std::env::var("PATH").expect("a PATH");
    let bin = images.env.path().join("bin");
    command.env("PATH", format!("{}:{path}", bin.display()));
    images.env.run(&mut command).success();
    let asked = fs::read_to_string(images.env.path().join("home/asked")).expect("asked");
    assert_eq!(
        asked.lines().next(),
        Some(format!("get {address}").as_str())
    );
}

#[test]
fn a_bearer_token_opens_a_registry() {
    let images = require!(Images::new());
    images.push("one", "some/image:tag");
    let proxy = FaultProxy::start(images.server.address(), Faults::none()).expect("a proxy");
    let address = proxy.address();
    let challenge = Fault::Answer {
        status: 401,
        headers: vec![(
            "WWW-Authenticate".to_owned(),
            format!(
                "Bearer realm=\"http://{address}/token\",service=\"tests\",scope=\"repository:some/image:pull\""
            ),
        )],
        body: Vec::new(),
    };
    let token = Fault::Answer {
        status: 200,
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        body: br#"{"token":"good"}"#.to_vec(),
    };
    proxy.set(
        Faults::none()
            .with(Rule::new("/token*", token))
            .with(Rule::new("/v2/*", challenge).unless_header("Authorization", "Bearer good")),
    );
    let name = format!("{address}/some/image:tag");
    images.pull(&[&name]).success();
    let requests = proxy.requests();
    let tokens = requests.iter().filter(|one| one.path.starts_with("/token"));
    let tokens: Vec<_> = tokens.map(|one| one.path.as_str()).collect();
    assert!(!tokens.is_empty(), "{requests:#?}");
    assert!(tokens[0].contains("service=tests"), "{tokens:?}");
    assert!(
        tokens[0].contains("scope=repository%3Asome%2Fimage%3Apull")
            || tokens[0].contains("scope=repository:some/image:pull"),
        "{tokens:?}"
    );
}

#[test]
fn tls_needs_the_authority() {
    let images = require!(Images::with(RegistrySetup {
        tls: true,
        ..RegistrySetup::default()
    }));
    images.push("one", "some/image:tag");
    for host in ["127.0.0.1", "localhost"] {
        let name = format!("{host}:{}/some/image:tag", images.server.port());
        let config = images.env.path().join("home/.config/hm-vm/config.toml");
        drop(fs::remove_file(&config));
        let refused = images.pull(&[&name]).exits_with(125);
        assert!(
            refused.stderr.to_lowercase().contains("certificate"),
            "{refused:?}"
        );
        images.env.write(
            "home/.config/hm-vm/config.toml",
            format!(
                "[registries.\"{host}:{}\"]\nca = [\"{}\"]\n",
                images.server.port(),
                images.server.authority().display()
            ),
        );
        images.pull(&[&name]).success();
        assert_eq!(images.sh(&name, "cat /version").success().stdout, "one");
    }
}

#[test]
fn a_mirror_is_asked_first_and_its_absence_costs_nothing() {
    let mut images = require!(Images::new());
    images.push("one", "some/image:tag");
    let mirror = images.server.address().to_owned();
    images.env.write(
        "home/.config/hm-vm/config.toml",
        format!("[registries.\"registry.invalid\"]\nmirrors = [\"{mirror}\"]\n"),
    );
    let name = "registry.invalid/some/image:tag";
    images.pull(&[name]).success();
    assert_eq!(images.sh(name, "cat /version").success().stdout, "one");
    assert_eq!(images.inspect(name)["reference"], name);
    images.server.stop();
    images.pull(&["--refresh", name]).exits_with(125);

    // The other way round: a mirror that is down, before a registry that is not.
    images.server.restart().expect("a registry");
    let other = require!(Images::new());
    let down = FaultProxy::start("127.0.0.1:1", Faults::none()).expect("a proxy");
    let address = down.address();
    drop(down);
    other.env.write(
        "home/.config/hm-vm/config.toml",
        format!("[registries.\"{mirror}\"]\nmirrors = [\"{address}\"]\n"),
    );
    other.pull(&[&images.name("some/image:tag")]).success();
}

#[test]
fn the_platform_of_an_index_is_chosen() {
    let images = require!(Images::new());
    let mut entries = Vec::new();
    for (architecture, version) in [("amd64", "one"), ("arm64", "two")] {
        let image = images.version(version);
        image
            .configure(&[&format!("--architecture={architecture}"), "--os=linux"])
            .expect("configured");
        image
            .push(&images.server, &format!("some/image:{architecture}"))
            .expect("pushed");
        let index = fs::read(image.layout().join("index.json")).expect("an index");
        let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
        let mut entry = index["manifests"][0].clone();
        entry["annotations"] = serde_json::Value::Null;
        entry["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
        entry
            .as_object_mut()
            .expect("an object")
            .remove("annotations");
        entries.push(entry);
    }
    let media = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media, "manifests": entries});
    images
        .server
        .put_manifest("some/image:all", media, &index.to_string())
        .expect("stored");
    let name = images.name("some/image:all");
    images.pull(&["--platform", "linux/arm64", &name]).success();
    let arm = images.inspect(&name);
    assert_eq!(arm["platform"], "linux/arm64");
    images.pull(&["--platform", "linux/amd64", &name]).success();
    assert_eq!(images.inspect(&name)["platform"], "linux/amd64");
    assert_ne!(images.inspect(&name)["digest"], arm["digest"]);
    let refused = images
        .pull(&["--platform", "linux/s390x", &name])
        .exits_with(125);
    assert!(refused.stderr.contains("arm64"), "{refused:?}");
}

#[test]
fn a_pull_goes_on_where_it_was_cut() {
    let images = require!(Images::new());
    let image = images.version("one");
    // Nothing that compresses.
    let tree = images.root.join("tree");
    fs::create_dir(&tree).expect("a directory");
    let noise = tree.join("noise");
    let made = std::process::Command::new("dd")
        .args(["if=/dev/urandom", "bs=1M", "count=4", "status=none"])
        .arg(format!("of={}", noise.display()))
        .status();
    assert!(made.expect("dd").success());
    image.add_tree(&tree, "/").expect("a layer");
    image
        .push(&images.server, "some/image:tag")
        .expect("pushed");
    let proxy = FaultProxy::start(
        images.server.address(),
        Faults::none().with(Rule::new("*/blobs/*", Fault::CutAfter(3 << 20)).method("GET")),
    )
    .expect("a proxy");
    let name = format!("{}/some/image:tag", proxy.address());
    images.pull(&[&name]).success();
    let requests = proxy.requests();
    let resumed = requests
        .iter()
        .filter(|one| one.header("Range").is_some_and(|range| range != "bytes=0-"))
        .count();
    assert!(resumed > 0, "{requests:#?}");
    let told = images.sh(&name, "wc -c < /noise").success();
    assert_eq!(told.stdout.trim(), (4 << 20).to_string());
}

#[test]
fn whatever_a_registry_does_a_pull_ends_and_leaves_nothing_wrong() {
    let images = require!(Images::new());
    images.push("one", "some/image:tag");
    let faults = [
        Fault::Drop,
        Fault::CutAfter(30),
        Fault::TruncateTo(30),
        Fault::FlipByte(30),
        Fault::Endless,
        Fault::Length(30),
        Fault::Length(1 << 40),
        Fault::wrong_digest(),
        Fault::status(404),
        Fault::status(403),
        Fault::status(500),
    ];
    for path in ["*/manifests/*", "*/blobs/*"] {
        for fault in &faults {
            let rule = Rule::new(path, fault.clone()).method("GET");
            let proxy = FaultProxy::start(images.server.address(), Faults::none().with(rule))
                .expect("a proxy");
            let name = format!("{}/some/image:tag", proxy.address());
            let run = images.pull(&[&name]);
            // Where it got through, it got the right thing.
            if run.code == 0 {
                let told = images.sh(&name, "cat /version").success();
                assert_eq!(told.stdout, "one", "{path} {fault:?}");
                images.env.hmvm(["image", "rm", &name]).success();
            } else {
                assert_eq!(run.code, 125, "{path} {fault:?}: {}", run.stderr);
                let known = images.env.json(["image", "ls", "--json"]);
                assert!(!known.to_string().contains(&name), "{known:#}");
            }
        }
    }
    assert_eq!(images.env.leftovers(), serde_json::Value::Array(vec![]));
    let name = images.name("some/image:tag");
    images.pull(&[&name]).success();
    assert_eq!(images.sh(&name, "cat /version").success().stdout, "one");
}
