//! Right pipeline files: what they mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hm_pipeline::parse::{Format, read};
use hm_pipeline::pipeline::{
    CacheDirectory, CacheMode, CacheRule, CacheSharing, Inject, Outputs, Ready, ReadyCheck,
    SecretForm, SecretSource, SecretUse, StepBase, StepLimits,
};
use hm_pipeline::{Pipeline, Step, StepId};
use hm_vm_core::NetworkPolicy;

mod json;

/// The form that the project promises to keep.
const EXAMPLE: &str = r#"
[pipeline]
name = "ci"
image = "debian:bookworm"

[steps.deps]
run = "apt-get update && apt-get install -y gcc make"
network = "outbound"

[steps.build]
from = "deps"
inject = "."
workdir = "/src"
run = "make -j2"
outputs = ["app"]

[steps.test]
from = "build"
run = "make check"
timeout = "5m"
"#;

fn pipeline(text: &str) -> Pipeline {
    read(text, Format::Toml, Path::new("/work/project"))
        .unwrap_or_else(|problems| panic!("{}", problems.render("hmvm.toml", text)))
}

#[test]
fn the_promised_example() {
    let pipeline = pipeline(EXAMPLE);
    assert_eq!(pipeline.name, "ci");
    assert_eq!(pipeline.directory, PathBuf::from("/work/project"));
    let [deps, build, test] = &pipeline.steps[..] else {
        panic!("three steps: {:?}", pipeline.steps)
    };
    assert_eq!(deps.base, StepBase::Image("debian:bookworm".to_owned()));
    assert_eq!(deps.network, NetworkPolicy::Outbound);
    assert_eq!(deps.working_dir, "");
    assert_eq!(build.base, StepBase::Step(StepId(0)));
    assert_eq!(build.injects[0].source, PathBuf::from("."));
    assert_eq!(build.injects[0].target, "/src");
    let app = Outputs {
        pattern: "app".to_owned(),
        to: PathBuf::new(),
    };
    assert_eq!(build.outputs, [app]);
    assert_eq!(test.base, StepBase::Step(StepId(1)));
    assert_eq!(test.working_dir, "/src");
    assert_eq!(test.timeout, Some(Duration::from_secs(300)));
}

/// Everything that a file can say.
const EVERYTHING: &str = include_str!("everything.toml");

fn step<'p>(pipeline: &'p Pipeline, name: &str) -> &'p Step {
    let found = pipeline.steps.iter().find(|step| step.name == name);
    found.unwrap_or_else(|| panic!("no step {name}"))
}

fn pairs(env: &std::collections::BTreeMap<String, String>) -> Vec<(&str, &str)> {
    env.iter()
        .map(|(name, value)| (&**name, &**value))
        .collect()
}

#[test]
fn what_holds_for_all_steps() {
    let pipeline = pipeline(EVERYTHING);
    assert_eq!(pipeline.timeout, Some(Duration::from_secs(5400)));
    assert_eq!(pipeline.parallelism.map(usize::from), Some(4));
    assert_eq!(pipeline.backend.as_deref(), Some("sandbox"));
    assert_eq!(pipeline.changed_since.as_deref(), Some("origin/main"));
    let names: Vec<&str> = pipeline.steps.iter().map(|step| &*step.name).collect();
    assert_eq!(names, ["deps", "build", "lint", "test"]);
    let env = [("CI", "true"), ("LEVEL", "3"), ("MODE", "fast")];
    assert_eq!(pairs(&step(&pipeline, "deps").env), env);
    let env = [("CI", "true"), ("LEVEL", "3"), ("MODE", "slow")];
    assert_eq!(pairs(&step(&pipeline, "build").env), env);
}

#[test]
fn a_step_of_its_own() {
    let pipeline = pipeline(EVERYTHING);
    let deps = step(&pipeline, "deps");
    assert_eq!(deps.run, "apt-get update\napt-get install -y gcc\n");
    assert_eq!(deps.shell.as_deref(), Some("bash -e"));
    assert_eq!(deps.user.as_deref(), Some("builder"));
    assert_eq!(deps.working_dir, "/work/app");
    let limits = StepLimits {
        cpus: Some(2),
        memory_mib: Some(1536),
        disk_gib: Some(10),
        pids: Some(512),
    };
    assert_eq!(deps.limits, limits);
    assert_eq!(deps.timeout, Some(Duration::from_secs(90)));
    assert_eq!(deps.retries, 2);
    let rule = CacheRule {
        mode: CacheMode::Auto,
        inputs: vec!["*.lock".to_owned()],
        ttl: Some(Duration::from_secs(7 * 86_400)),
    };
    assert_eq!(deps.cache, rule);
    let cache = |name: &str, target: &str, sharing| CacheDirectory {
        name: name.to_owned(),
        target: target.to_owned(),
        sharing,
    };
    let caches = [
        cache("apt", "/var/cache/apt", CacheSharing::Locked),
        cache("cargo", "/cargo", CacheSharing::Shared),
    ];
    assert_eq!(deps.caches, caches);
}

#[test]
fn a_step_that_forks() {
    let pipeline = pipeline(EVERYTHING);
    let build = step(&pipeline, "build");
    assert_eq!(build.base, StepBase::Step(StepId(0)));
    assert_eq!(build.needs, [StepId(2)]);
    assert_eq!(build.working_dir, "/work/app", "inherited");
    assert_eq!(build.user.as_deref(), Some("builder"), "inherited");
    assert_eq!(build.shell.as_deref(), Some("bash -e"), "inherited");
    assert_eq!(build.network, NetworkPolicy::None, "not inherited");
    assert_eq!(build.limits, StepLimits::default(), "not inherited");
    assert!(build.caches.is_empty(), "not inherited");
    assert!(build.allow_failure);
    let plain = Inject {
        source: PathBuf::from("."),
        target: "/work/app".to_owned(),
        include: vec![],
        exclude: vec![],
        ignore_files: true,
        with_outputs: false,
    };
    let full = Inject {
        source: PathBuf::from("../lib"),
        target: "/lib".to_owned(),
        include: vec!["*.c".to_owned()],
        exclude: vec!["*.o".to_owned()],
        ignore_files: false,
        with_outputs: true,
    };
    assert_eq!(build.injects, [plain, full]);
    let outputs: Vec<(&str, &str)> = build
        .outputs
        .iter()
        .map(|output| (&*output.pattern, output.to.to_str().expect("text")))
        .collect();
    assert_eq!(
        outputs,
        [("app", ""), ("/var/log/*.log", "logs"), ("x", "dist")]
    );
    let condition = build.condition.as_ref().expect("a condition");
    assert!(condition.needs_changes());
    let test = step(&pipeline, "test");
    assert_eq!(test.working_dir, "/work/app", "inherited over two steps");
    assert_eq!(test.cache.mode, CacheMode::Key("test-v1".to_owned()));
}

#[test]
fn secrets() {
    let pipeline = pipeline(EVERYTHING);
    let secret = |name: &str, source, form| SecretUse {
        name: name.to_owned(),
        source,
        form,
    };
    let variable = |name: &str| SecretSource::Variable(name.to_owned());
    let file = |target: &str| SecretForm::File(target.to_owned());
    let token = secret(
        "NPM_TOKEN",
        variable("NPM_TOKEN"),
        file("/run/secrets/NPM_TOKEN"),
    );
    assert_eq!(step(&pipeline, "build").secrets, [token]);
    let expected = [
        secret("a", variable("A"), file("/run/secrets/a")),
        secret("b", SecretSource::File("~/.b".into()), file("/b")),
        secret(
            "c",
            SecretSource::File("c".into()),
            SecretForm::Variable("C".to_owned()),
        ),
    ];
    assert_eq!(step(&pipeline, "lint").secrets, expected);
    assert_eq!(step(&pipeline, "lint").cache.mode, CacheMode::Off);
    assert_eq!(step(&pipeline, "lint").working_dir, "/src");
}

#[test]
fn services() {
    let pipeline = pipeline(EVERYTHING);
    let [db, web, log] = &step(&pipeline, "test").services[..] else {
        panic!("three services")
    };
    assert_eq!(db.base, StepBase::Image("postgres".to_owned()));
    assert_eq!(db.working_dir, "/data");
    assert_eq!(db.user.as_deref(), Some("postgres"));
    assert_eq!(db.limits.memory_mib, Some(256));
    assert_eq!(db.env["PGDATA"], "/data");
    assert_eq!(db.env["CI"], "true");
    let ready = |check, seconds| {
        Some(Ready {
            check,
            timeout: Duration::from_secs(seconds),
        })
    };
    assert_eq!(db.ready, ready(ReadyCheck::Port(5432), 10));
    assert_eq!(web.base, StepBase::Step(StepId(1)));
    assert_eq!(web.working_dir, "/work/app", "inherited");
    assert_eq!(web.user.as_deref(), Some("builder"), "inherited");
    assert_eq!(
        web.ready,
        ready(ReadyCheck::Command("curl localhost".to_owned()), 60)
    );
    assert_eq!(log.base, StepBase::Image("debian:bookworm".to_owned()));
    assert_eq!(log.working_dir, "");
    assert_eq!(log.ready, ready(ReadyCheck::Line("started".to_owned()), 60));
}

#[test]
fn defaults() {
    let pipeline = pipeline("[steps.a]\nrun = \"x\"\n");
    assert_eq!(pipeline.name, "project");
    let step = &pipeline.steps[0];
    assert_eq!(step.base, StepBase::Image("host".to_owned()));
    assert_eq!(step.working_dir, "", "the image says it");
    assert_eq!(step.cache, CacheRule::default());
    assert_eq!(
        (step.retries, step.timeout, step.allow_failure),
        (0, None, false)
    );
}

#[test]
fn what_is_injected_decides_the_directory_where_nobody_else_does() {
    let pipeline = pipeline(
        r#"
[steps]
a = { run = "x" }
b = { run = "x", from = "a", inject = "." }
c = { run = "x", from = "b" }
d = { run = "x", from = "a", inject = { source = ".", target = "/app" } }
e = { run = "x", from = "d", workdir = "/" }
f = { run = "x", from = "e", inject = "." }
"#,
    );
    let directories: Vec<&str> = pipeline
        .steps
        .iter()
        .map(|step| &*step.working_dir)
        .collect();
    assert_eq!(directories, ["", "/src", "/src", "", "/", "/"]);
}

#[test]
fn a_matrix() {
    let pipeline = pipeline(
        r#"
[steps.build]
run = "make ${matrix.os} ${matrix.v}"
image = "${matrix.os}:latest"
env = { OS = "${matrix.os}" }
cpus = "${matrix.v}"
allow_failure = "${matrix.odd}"
timeout = "${matrix.v}m"
matrix.os = ["debian", "alpine"]
matrix.v = [1, 2]
matrix.odd = [true, false]
matrix.exclude = [{ v = 1, odd = false }, { v = 2, odd = true }, { os = "alpine", v = 2 }]

[steps.test]
from = "build"
run = "x"
matrix = { os = ["alpine"] }

[steps.one]
from = "build[os=debian,v=2,odd=false]"
needs = ["test", "build"]
run = "x"
"#,
    );
    let names: Vec<&str> = pipeline.steps.iter().map(|step| &*step.name).collect();
    let expected = [
        "build[os=debian,v=1,odd=true]",
        "build[os=debian,v=2,odd=false]",
        "build[os=alpine,v=1,odd=true]",
        "test[os=alpine]",
        "one",
    ];
    assert_eq!(names, expected);
    let build = &pipeline.steps[1];
    assert_eq!(build.group, "build");
    assert_eq!(build.run, "make debian 2");
    assert_eq!(build.base, StepBase::Image("debian:latest".to_owned()));
    assert_eq!(build.env["OS"], "debian");
    assert_eq!(build.limits.cpus, Some(2));
    assert_eq!(build.timeout, Some(Duration::from_secs(120)));
    assert!(!build.allow_failure);
    assert!(pipeline.steps[0].allow_failure);
    assert_eq!(pipeline.steps[3].base, StepBase::Step(StepId(2)));
    let one = &pipeline.steps[4];
    assert_eq!(one.base, StepBase::Step(StepId(1)));
    assert_eq!(one.needs, [StepId(3), StepId(0), StepId(2)]);
}

#[test]
fn a_mark_of_the_byte_order() {
    assert_eq!(
        pipeline("\u{feff}[steps.a]\r\nrun = \"x\"\r\n").steps.len(),
        1
    );
}
