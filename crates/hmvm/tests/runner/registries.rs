//! What users say of registries: options, environment, configuration and pipeline file.

use hm_vm_testkit::images::need_busybox;
use hm_vm_testkit::registry::{RegistryServer, RegistrySetup, TestImage, need_registry};
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;
use serde_json::{Value, json};

use crate::env::TestEnv;
use crate::pipeline::support::Project;

/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:1";

/// Arguments, then standard error as it must be.
const WRONG: &[(&[&str], &str)] = &[
    (
        &["run", "--remote-cache", "cache"],
        "error: invalid value 'cache' for '--remote-cache <REGISTRY/REPO[,mode=MODE]>': `cache` is no repository\n\
         hint: write the host of a registry and a path there, as \"registry.example/team/cache\"\n",
    ),
    (
        &["plan", "--remote-cache", "r.example/c,mode=readonly"],
        "error: invalid value 'r.example/c,mode=readonly' for '--remote-cache <REGISTRY/REPO[,mode=MODE]>': unknown value `readonly`\n\
         hint: did you mean \"read-only\"?\n",
    ),
    (
        &["exec", "--remote-cache", "r.example/c:tag", "--", "true"],
        "error: invalid value 'r.example/c:tag' for '--remote-cache <REGISTRY/REPO[,mode=MODE]>': `r.example/c:tag` has a tag or a digest\n\
         hint: the tags are the cache's own: write \"r.example/c\"\n",
    ),
    (
        &["exec", "--remote-cache-mode", "write", "--", "true"],
        "error: invalid value 'write' for '--remote-cache-mode <MODE>': no mode\n\
         hint: write read-write or read-only\n",
    ),
    (
        &["exec", "--image-max-age", "7", "--", "true"],
        "error: invalid value '7' for '--image-max-age <TIME>': a unit is missing\n\
         hint: write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d\n",
    ),
    (
        &["image", "import", "oci:", "x"],
        "error: invalid value 'oci:' for '<SOURCE>': nothing stands behind oci:\n\
         hint: write oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] or docker-daemon:NAME\n",
    ),
];

#[test]
fn wrong_options_are_told_with_what_to_write() {
    let env = TestEnv::new();
    for (arguments, expected) in WRONG {
        let run = env.hmvm(*arguments).exits_with(125);
        assert_eq!(run.stderr, *expected, "{arguments:?}");
        assert_eq!(run.stdout, "", "{arguments:?}");
    }
    assert!(!env.store().exists(), "nothing was opened");
}

#[test]
fn a_wrong_variable_is_told_as_one() {
    let env = TestEnv::new();
    let mut command = env.command(["exec", "--", "true"]);
    command.env("HMVM_REMOTE_CACHE", "https://r.example/c");
    let run = env.run(&mut command).exits_with(125);
    assert_eq!(
        run.stderr,
        "error: HMVM_REMOTE_CACHE=https://r.example/c: `https://r.example/c` is no repository\n\
         hint: write it without the scheme: \"r.example/c\"\n"
    );
}

#[test]
fn a_wrong_configuration_is_told_with_its_places() {
    let env = TestEnv::new();
    env.write(
        "home/.config/hm-vm/config.toml",
        "[remote_cache]\nrepo = \"r.example/c\"\n",
    );
    let run = env
        .hmvm(["image", "pull", "r.example/image"])
        .exits_with(125);
    assert_eq!(
        run.stderr,
        "$DIR/home/.config/hm-vm/config.toml:1:2: `repository` is missing\n\
         \x20 |\n1 | [remote_cache]\n\x20 |  ^^^^^^^^^^^^\n\
         hint: add `repository` to this table\n\n\
         $DIR/home/.config/hm-vm/config.toml:2:1: unknown key `repo`\n\
         \x20 |\n2 | repo = \"r.example/c\"\n\x20 | ^^^^\n\
         hint: keys here are repository, mode\n\
         error: $DIR/home/.config/hm-vm/config.toml has 2 problems\n"
    );
    // What needs no configuration goes on.
    env.hmvm(["image", "ls"]).success();
}

#[test]
fn doctor_names_the_configuration() {
    let env = TestEnv::new();
    let report = |env: &TestEnv| -> Value {
        let run = env.hmvm(["doctor", "--json"]);
        serde_json::from_str(&run.stdout).expect("JSON")
    };
    let path = "$DIR/home/.config/hm-vm/config.toml";
    assert_eq!(
        report(&env)["config"],
        json!({ "path": path, "exists": false, "error": null })
    );
    env.write("home/.config/hm-vm/config.toml", "[images]\n");
    assert_eq!(report(&env)["config"]["exists"], true);
    env.write("home/.config/hm-vm/config.toml", "[image]\n");
    let run = env.hmvm(["doctor"]).exits_with(1);
    assert!(run.stderr.contains("did you mean `images`?"), "{run:?}");
    assert!(run.stdout.contains("has 1 problem"), "{run:?}");
}

#[test]
fn a_configuration_that_is_named_must_be_there() {
    let env = TestEnv::new();
    let pull = |path: &str| {
        let mut command = env.command(["image", "pull", &format!("{NOBODY}/image")]);
        command.env("HMVM_CONFIG", path);
        env.run(&mut command).exits_with(125).stderr
    };
    let told = pull("other.toml");
    assert!(
        told.starts_with("error: $DIR/other.toml: there is no such file\nhint: HMVM_CONFIG"),
        "{told}"
    );
    env.write("other.toml", "[images]\nmax_age = \"1d\"\n");
    let told = pull("other.toml");
    assert!(told.contains("cannot pull image"), "{told}");
}

#[test]
fn the_first_of_option_environment_pipeline_and_configuration_counts() {
    let project = require!(Project::new("[steps.a]\nrun = \"true\"\n"));
    let cache = |name: &str| format!("{NOBODY}/from/{name}");
    let plan = |arguments: &[&str], variable: Option<String>| {
        let mut command = project.command(arguments);
        command.envs(variable.map(|value| ("HMVM_REMOTE_CACHE", value)));
        project.env.run(&mut command).success().stderr
    };
    let names = |told: &str, name: &str| told.contains(&format!("shared cache {}:", cache(name)));

    let told = plan(&["plan"], None);
    assert!(!told.contains("shared cache"), "{told}");
    project.env.write(
        "home/.config/hm-vm/config.toml",
        format!("remote_cache = \"{}\"\n", cache("configuration")),
    );
    let told = plan(&["plan"], None);
    assert!(names(&told, "configuration"), "{told}");
    project.write(
        "hmvm.toml",
        format!(
            "[pipeline]\nremote_cache = {{ repository = \"{}\", mode = \"read-only\" }}\n\
             [steps.a]\nrun = \"true\"\n",
            cache("pipeline")
        ),
    );
    let told = plan(&["plan"], None);
    assert!(names(&told, "pipeline"), "{told}");
    let told = plan(&["plan"], Some(cache("variable")));
    assert!(names(&told, "variable"), "{told}");
    let option = cache("option");
    let with_option = ["plan", "--remote-cache", &option];
    let told = plan(&with_option, Some(cache("variable")));
    assert!(names(&told, "option"), "{told}");
    let told = plan(&["plan", "--no-remote-cache"], Some(cache("variable")));
    assert!(!told.contains("shared cache"), "{told}");
}

#[test]
fn an_image_that_cannot_be_had_is_told_with_a_hint() {
    let env = require!(TestEnv::machine());
    let exec = |image: &str, more: &[&str]| {
        let arguments = ["exec", "--image", image];
        let all: Vec<&str> = arguments
            .iter()
            .chain(more)
            .chain(&["--", "true"])
            .copied()
            .collect();
        env.hmvm(all).exits_with(125).stderr
    };
    assert_eq!(
        exec("nosuch", &["--pull", "never"]),
        "error: image \"nosuch\" not found\n\
         hint: --pull never is set; hmvm image pull nosuch gets it\n"
    );
    let told = exec("Host", &[]);
    assert!(told.ends_with("hint: did you mean \"host\"?\n"), "{told}");
    let told = exec(&format!("{NOBODY}/image"), &[]);
    assert!(
        told.starts_with(&format!("error: cannot pull image {NOBODY}/image: ")),
        "{told}"
    );
    assert!(
        told.contains("\nhint: images that are here can be used offline"),
        "{told}"
    );
}

#[test]
fn what_is_written_needs_a_form_and_a_name() {
    let env = require!(TestEnv::machine());
    let result = env.result(&["exec", "--json", "--", "true"]);
    let id = result["snapshot"].as_str().expect("an id");
    let told = env.hmvm(["snapshot", "export", id, "out"]).exits_with(125);
    assert!(
        told.stderr.contains("hint: write oci:out for a directory"),
        "{told:?}"
    );
    let digest = format!("r.example/a@sha256:{}", "0".repeat(64));
    let told = env.hmvm(["push", id, &digest]).exits_with(125);
    assert!(
        told.stderr.contains("a digest cannot be chosen"),
        "{told:?}"
    );
    let told = env
        .hmvm(["cache", "export", "nosuch", "oci:out"])
        .exits_with(125);
    assert!(told.stderr.contains("nosuch"), "{told:?}");
}

#[test]
fn an_old_image_is_used_where_its_registry_is_gone() {
    require!(need_registry());
    require!(need_busybox());
    require!(TestImage::need_tools());
    let env = require!(TestEnv::machine());
    let root = TestRoot::new().expect("a directory");
    let mut server = RegistryServer::start(RegistrySetup::default()).expect("a registry");
    let image = TestImage::busybox(&root.join("layout")).expect("an image");
    image.push(&server, "some/image:1").expect("pushed");
    let name = format!("{}/some/image:1", server.address());
    let exec = |more: &[&str]| {
        let arguments = ["exec", "--image", &name, "--cache", "off"];
        let all: Vec<&str> = arguments
            .iter()
            .chain(more)
            .chain(&["--", "true"])
            .copied()
            .collect();
        env.hmvm(all)
    };
    let asked = |server: &RegistryServer| server.requests().expect("a log").len();
    exec(&[]).success();
    let before = asked(&server);
    exec(&[]).success();
    exec(&["--image-max-age", "1h"]).success();
    assert_eq!(asked(&server), before, "it was not asked again");
    exec(&["--image-max-age", "1ms"]).success();
    assert!(asked(&server) > before, "it was asked again");

    server.stop();
    let told = exec(&["--image-max-age", "1ms"]).success().stderr;
    assert!(told.contains("is used as it was"), "{told}");
    let config = "[images]\nmax_age = \"1ms\"\n";
    env.write("home/.config/hm-vm/config.toml", config);
    let told = exec(&[]).success().stderr;
    assert!(told.contains("is used as it was"), "{told}");
    exec(&["--image-max-age", "1h"]).success();
    let told = exec(&["--pull", "refresh"]).exits_with(125).stderr;
    assert!(
        told.contains("hint: --pull missing uses what is here"),
        "{told}"
    );
    let told = exec(&["--pull", "never"]).success().stderr;
    assert!(!told.contains("is used as it was"), "{told}");
}

#[test]
fn a_push_tells_what_travelled() {
    require!(need_registry());
    let env = require!(TestEnv::machine());
    let root = TestRoot::new().expect("a directory");
    require!(need_busybox());
    let tree = root.join("busybox");
    hm_vm_testkit::images::busybox_root(&tree).expect("a root file system");
    let server = RegistryServer::start(RegistrySetup::default()).expect("a registry");
    env.hmvm(["image", "import", tree.to_str().expect("text"), "busybox"])
        .success();
    let run = [
        "exec",
        "--json",
        "--image",
        "busybox",
        "--",
        "echo new > /new",
    ];
    let result = env.result(&run);
    let (id, key) = (
        result["snapshot"].as_str().expect("an id"),
        result["key"].as_str().expect("a key"),
    );
    let name = format!("{}/team/app:1", server.address());
    let first = env.json(["push", "--json", id, &name]);
    let second = env.json(["push", "--json", key, &name]);
    assert_eq!(first["manifest"], second["manifest"]);
    assert_eq!(first["layers"], 2);
    assert!(first["sent_bytes"].as_u64() > second["sent_bytes"].as_u64());
    let plain = env.hmvm(["snapshot", "push", &id[..8], &name]).success();
    assert_eq!(
        plain.stdout.trim_end(),
        first["manifest"].as_str().expect("text")
    );
    let archive = env.path().join("out.tar");
    let place = format!("oci-archive:{}:app:1", archive.display());
    let written = env.json(["snapshot", "export", "--json", id, &place]);
    assert_eq!(
        written["manifest"], first["manifest"],
        "the same bytes everywhere"
    );
    let archive = archive.to_str().expect("text");
    env.hmvm(["image", "import", archive, "again"]).success();
    let read = [
        "exec", "--image", "again", "--cache", "off", "--", "cat /new",
    ];
    assert_eq!(env.hmvm(read).success().stdout, "new\n");
}
