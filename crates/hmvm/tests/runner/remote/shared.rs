//! Two stores, one registry: work is done once.

use std::process::Stdio;

use hm_vm_testkit::registry::{RegistrySetup, Request};
use hm_vm_testkit::require;

use super::support::{Sharing, wait, warned};
use crate::pipeline::support::{Events, outcomes};

const CHAIN: &str = r#"
[pipeline]
name = "ci"
image = "busybox"

[steps.deps]
run = "mkdir /deps; head -c 300000 /dev/urandom > /deps/big; echo dep > /deps/dep; echo made dep; echo careful >&2"

[steps.build]
from = "deps"
inject = "."
workdir = "/src"
run = "cat /deps/dep input > app; md5sum /deps/big > sum; rm /deps/dep; echo built"
outputs = ["app", "sum"]

[steps.test]
from = "build"
run = "grep -q dep app; test ! -e /deps/dep; echo tested; pwd"

[steps.lint]
from = "deps"
run = "echo lint"
"#;

const ALL: [&str; 4] = ["build", "deps", "lint", "test"];

fn all(outcome: &str) -> std::collections::BTreeMap<String, String> {
    outcomes(&ALL.map(|step| (step, outcome)))
}

#[test]
fn the_second_store_executes_nothing_and_has_everything() {
    let sharing = require!(Sharing::new());
    let repository = sharing.repository();
    let one = require!(sharing.store(CHAIN));
    let two = require!(sharing.store(CHAIN));
    for project in [&one, &two] {
        project.write("input", "one\n");
    }
    let first = one.run_shared(&repository, &[]).exits_with(0);
    assert_eq!(first.outcomes(), all("succeeded"), "{}", first.stderr);
    let second = two.run_shared(&repository, &[]).exits_with(0);
    assert_eq!(second.outcomes(), all("cached"), "{:#?}", second.all);
    assert!(!warned(&second), "{:#?}", second.all);

    assert_eq!(two.read("app"), "dep\none\n");
    assert_eq!(two.read("sum"), one.read("sum"));
    for step in ALL {
        assert_eq!(second.output(step), first.output(step), "{step}");
        assert_eq!(
            second.step(step)["snapshot"],
            first.step(step)["snapshot"],
            "{step}"
        );
    }
    for step in ["test", "lint"] {
        let id = first.step(step)["snapshot"].as_str().expect("an id");
        assert_eq!(two.tree(id), one.tree(id), "{step}");
    }
    let log = two.hmvm(&["logs", "1", "deps"]).success();
    assert_eq!(
        (log.stdout.as_str(), log.stderr.as_str()),
        ("made dep\n", "careful\n")
    );

    // What is here now is asked of nobody, and nothing new was given away.
    let before = sharing.server.requests().expect("a log");
    assert_eq!(
        before.iter().filter(|one| one.stored_manifest()).count(),
        4,
        "{before:#?}"
    );
    let third = two.run_shared(&repository, &[]).exits_with(0);
    assert_eq!(third.outcomes(), all("cached"));
    let after = sharing.server.requests().expect("a log");
    let new = &after[before.len()..];
    assert!(!new.iter().any(Request::fetched_blob), "{new:#?}");
    assert!(!new.iter().any(Request::stored_blob), "{new:#?}");
    one.assert_clean();
    two.assert_clean();
}

#[test]
fn explain_and_plan_know_of_results_elsewhere() {
    let sharing = require!(Sharing::new());
    let repository = sharing.repository();
    let one = require!(sharing.store(CHAIN));
    let two = require!(sharing.store(CHAIN));
    for project in [&one, &two] {
        project.write("input", "one\n");
    }
    one.run_shared(&repository, &[]).exits_with(0);
    two.run_shared(&repository, &[]).exits_with(0);
    let told = two.hmvm(&["explain", "build"]).success();
    assert!(told.stdout.contains("cached"), "{told:?}");
    two.write("input", "two\n");
    let told = two.hmvm(&["explain", "build"]).success();
    assert!(told.stdout.contains("inject"), "{told:?}");
}

#[test]
fn only_what_changed_runs_and_only_its_layers_travel() {
    let sharing = require!(Sharing::new());
    let repository = sharing.repository();
    let one = require!(sharing.store(CHAIN));
    let two = require!(sharing.store(CHAIN));
    one.write("input", "one\n");
    two.write("input", "two\n");
    one.run_shared(&repository, &[]).exits_with(0);
    let blobs = sharing.server.blobs().expect("blobs");
    let second = two.run_shared(&repository, &[]).exits_with(0);
    let expected = [
        ("deps", "cached"),
        ("lint", "cached"),
        ("build", "succeeded"),
        ("test", "succeeded"),
    ];
    assert_eq!(second.outcomes(), outcomes(&expected), "{}", second.stderr);
    assert_eq!(two.read("app"), "dep\ntwo\n");
    // The big layer of `deps` is in the chain of `build`: it is there already.
    let new: u64 = sharing
        .server
        .blobs()
        .expect("blobs")
        .iter()
        .filter(|digest| !blobs.contains(digest))
        .map(|digest| {
            let file = sharing.server.blob(digest);
            std::fs::metadata(file).expect("a blob").len()
        })
        .sum();
    assert!(new > 0 && new < 100_000, "{new} bytes");

    one.write("input", "two\n");
    let back = one.run_shared(&repository, &[]).exits_with(0);
    assert_eq!(back.outcomes(), all("cached"), "{:#?}", back.all);
    assert_eq!(one.read("app"), "dep\ntwo\n");
}

#[test]
fn a_reader_gives_nothing() {
    let sharing = require!(Sharing::new());
    let repository = sharing.repository();
    let one = require!(sharing.store(CHAIN));
    one.write("input", "one\n");
    let writes = |request: &Request| !matches!(request.method.as_str(), "GET" | "HEAD");
    let run = one
        .run_shared(&repository, &["--remote-cache-mode", "read-only"])
        .exits_with(0);
    assert_eq!(run.outcomes(), all("succeeded"));
    assert_eq!(sharing.asked(writes), 0);
    // And takes what there is.
    let two = require!(sharing.store(CHAIN));
    two.write("input", "one\n");
    two.run_shared(&repository, &[]).exits_with(0);
    let written = sharing.asked(writes);
    assert!(written > 0);
    let three = require!(sharing.store(CHAIN));
    three.write("input", "one\n");
    let run = three
        .run_shared(&repository, &["--remote-cache-mode", "read-only"])
        .exits_with(0);
    assert_eq!(run.outcomes(), all("cached"));
    assert_eq!(sharing.asked(writes), written);
}

#[test]
fn a_registry_that_takes_nothing_costs_a_warning() {
    let sharing = require!(Sharing::with(RegistrySetup {
        read_only: true,
        ..RegistrySetup::default()
    }));
    let one = require!(sharing.store(CHAIN));
    one.write("input", "one\n");
    let run = one.run_shared(&sharing.repository(), &[]).exits_with(0);
    assert_eq!(run.outcomes(), all("succeeded"));
    assert!(warned(&run), "{:#?}", run.all);
}

#[test]
fn two_stores_at_once_agree_in_the_end() {
    let sharing = require!(Sharing::new());
    let repository = sharing.repository();
    let projects = [
        require!(sharing.store(CHAIN)),
        require!(sharing.store(CHAIN)),
    ];
    let children: Vec<_> = projects
        .iter()
        .map(|project| {
            project.write("input", "one\n");
            let mut command = project.command(&["run", "--json", "--remote-cache", &repository]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("hmvm starts")
        })
        .collect();
    for (child, project) in children.into_iter().zip(&projects) {
        let run = Events::of(&wait(&project.env, child)).exits_with(0);
        assert_eq!(run.verdict(), "succeeded");
        assert_eq!(project.read("app"), "dep\none\n");
    }
    // What came first under each key is there: perhaps a result of one store above one of the other, which
    // cannot be used. A third store makes what is missing, and then everything fits.
    for expected in [None, Some(all("cached"))] {
        let next = require!(sharing.store(CHAIN));
        next.write("input", "one\n");
        let run = next.run_shared(&repository, &[]).exits_with(0);
        assert_eq!(next.read("app"), "dep\none\n");
        if let Some(expected) = expected {
            assert_eq!(run.outcomes(), expected, "{:#?}", run.all);
        }
    }
}

#[test]
fn the_host_image_is_shared_on_one_machine() {
    let sharing = require!(Sharing::new());
    let repository = sharing.repository();
    let file = CHAIN.replace("\"busybox\"", "\"host\"");
    let one = require!(crate::pipeline::support::Project::new(&file));
    let two = require!(crate::pipeline::support::Project::new(&file));
    for project in [&one, &two] {
        project.write("input", "one\n");
    }
    one.run_shared(&repository, &[]).exits_with(0);
    let second = two.run_shared(&repository, &[]).exits_with(0);
    assert_eq!(second.outcomes(), all("cached"), "{:#?}", second.all);
    assert_eq!(two.read("sum"), one.read("sum"));
}

#[test]
fn the_pipeline_file_and_the_configuration_name_the_cache() {
    let sharing = require!(Sharing::new());
    let repository = sharing.repository();
    let named = CHAIN.replace(
        "image = \"busybox\"",
        &format!("image = \"busybox\"\nremote_cache = \"{repository}\""),
    );
    let one = require!(sharing.store(&named));
    one.write("input", "one\n");
    // The pipeline file is in the injected directory, and differs.
    one.write(".hmvmignore", "hmvm.toml\n");
    one.run(&[]).exits_with(0);
    assert_eq!(sharing.server.tags("team/cache").expect("tags").len(), 4);

    let two = require!(sharing.store(CHAIN));
    two.write("input", "one\n");
    two.write(".hmvmignore", "hmvm.toml\n");
    let config = format!("[remote_cache]\nrepository = \"{repository}\"\nmode = \"read-only\"\n");
    two.env.write("home/.config/hm-vm/config.toml", config);
    let run = two.run(&[]).exits_with(0);
    assert_eq!(run.outcomes(), all("cached"), "{:#?}", run.all);

    let three = require!(sharing.store(&named));
    three.write("input", "one\n");
    let before = sharing.server.requests().expect("a log").len();
    let run = three.run(&["--no-remote-cache"]).exits_with(0);
    assert_eq!(run.outcomes(), all("succeeded"));
    assert_eq!(sharing.server.requests().expect("a log").len(), before);
}

#[test]
fn credentials_come_from_dockers_file() {
    let sharing = require!(Sharing::with(RegistrySetup {
        htpasswd: true,
        tls: true,
        ..RegistrySetup::default()
    }));
    let repository = sharing.repository();
    let address = sharing.server.address();
    let authority = sharing.server.authority();
    let stores = [
        require!(sharing.store(CHAIN)),
        require!(sharing.store(CHAIN)),
    ];
    for store in &stores {
        store.write("input", "one\n");
        // "user:secret"
        let auth = format!(r#"{{"auths":{{"{address}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#);
        store.env.write("home/.docker/config.json", auth);
        let config = format!(
            "[registries.\"{address}\"]\nca = [\"{}\"]\n",
            authority.display()
        );
        store.env.write("home/.config/hm-vm/config.toml", config);
    }
    let first = stores[0].run_shared(&repository, &[]).exits_with(0);
    assert!(!warned(&first), "{:#?}", first.all);
    let second = stores[1].run_shared(&repository, &[]).exits_with(0);
    assert_eq!(second.outcomes(), all("cached"), "{:#?}", second.all);
}
