//! A registry that is down, slow, full or lies costs a warning and a bounded time, never a wrong
//! result.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

use hm_vm_testkit::registry::{Fault, FaultProxy, Faults, Rule};
use hm_vm_testkit::require;

use super::support::{Sharing, warned};
use crate::pipeline::support::{Events, Project};

/// No two runs of it give the same file, so that it shows which run a result is of; both must be
/// whole.
const FILE: &str = r#"
[pipeline]
image = "host"
[steps.base]
run = "head -c 200000 /dev/urandom > /big; md5sum < /big > /sum; echo base"
[steps.leaf]
from = "base"
inject = "."
workdir = "/src"
run = "md5sum < /big | cmp - /sum && cp /sum sum && cat input > app && echo leaf"
outputs = ["app", "sum"]
"#;

/// Requests of one kind, as a rule selects them.
struct Kind {
    name: &'static str,
    method: &'static str,
    path: &'static str,
}

const fn kind(name: &'static str, method: &'static str, path: &'static str) -> Kind {
    Kind { name, method, path }
}

/// What a reader asks.
const READS: [Kind; 2] = [
    kind("a lookup", "GET", "*/manifests/*"),
    kind("a blob", "GET", "*/blobs/*"),
];

/// What a writer asks.
const WRITES: [Kind; 5] = [
    kind("whether a blob is there", "HEAD", "*/blobs/*"),
    kind("the start of an upload", "POST", "*/blobs/uploads/*"),
    kind("a part of an upload", "PATCH", "*/blobs/uploads/*"),
    kind("the end of an upload", "PUT", "*/blobs/uploads/*"),
    kind("a manifest", "PUT", "*/manifests/*"),
];

/// What can happen to any request.
fn everywhere() -> Vec<Fault> {
    vec![
        Fault::Drop,
        Fault::Stall,
        Fault::Delay(Duration::from_millis(300)),
        Fault::status(401),
        Fault::status(403),
        Fault::status(404),
        Fault::status(500),
        Fault::status(507),
        Fault::too_many_requests(1),
        Fault::too_many_requests(100_000),
        Fault::Answer {
            status: 200,
            headers: Vec::new(),
            body: b"<html>captive portal</html>".to_vec(),
        },
        Fault::Answer {
            status: 307,
            headers: vec![("Location".to_owned(), "/v2/loop/blobs/loop".to_owned())],
            body: Vec::new(),
        },
    ]
}

/// What can happen to an answer with a body.
fn to_bodies() -> Vec<Fault> {
    vec![
        Fault::CutAfter(20),
        Fault::StallAfter(20),
        Fault::TruncateTo(20),
        Fault::FlipByte(15),
        Fault::FlipByte(120),
        Fault::Endless,
        Fault::Slow(200),
        Fault::Length(10),
        Fault::Length(1 << 40),
        Fault::wrong_digest(),
    ]
}

/// What can happen to a request with a body.
fn to_uploads() -> Vec<Fault> {
    vec![Fault::CutRequestAfter(20), Fault::StallRequestAfter(20)]
}

/// The result is right, whoever made it.
#[track_caller]
fn assert_right(project: &Project, run: &Events, what: &str) {
    assert_eq!(run.code, 0, "{what}: {}\n{:#?}", run.stderr, run.all);
    assert_eq!(run.verdict(), "succeeded", "{what}");
    assert_eq!(project.read("app"), "input\n", "{what}");
    // The base is not needed where the leaf is known and the base is not.
    if run.outcomes()["base"] != "skipped" {
        assert_eq!(run.output("base"), ["base"], "{what}");
    }
    assert_eq!(run.output("leaf"), ["leaf"], "{what}");
    // The leaf compares what it was given with what its parent has written.
    assert_eq!(project.read("sum").len(), 36, "{what}");
}

fn project() -> Project {
    let project = Project::new(FILE).expect("a machine");
    project.write("input", "input\n");
    project
}

/// Runs that go on at once.
const AT_ONCE: usize = 24;

/// Runs cases on many threads, as most of them wait; and all of them, as each one tells something.
fn in_parallel<T: Send>(cases: Vec<T>, run: impl Fn(usize, T) + Sync) {
    let cases = Mutex::new(cases.into_iter().enumerate());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let case = cases.lock().expect("no panic while it is held").next();
                    let Some((number, case)) = case else { return };
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(number, case)));
                    if let Err(panic) = outcome {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text = text.unwrap_or_else(|| format!("case {number}"));
                        failed.lock().expect("no panic while it is held").push(text);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic while it was held");
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn a_reader_of_a_registry_that_misbehaves_gets_right_results_heavy() {
    let sharing = require!(Sharing::new());
    require!(Project::new(FILE));
    let filled = project();
    let first = filled.run_shared(&sharing.repository(), &[]).exits_with(0);
    assert_right(&filled, &first, "the first run");
    let mut cases = Vec::new();
    for kind in &READS {
        for fault in everywhere().into_iter().chain(to_bodies()) {
            cases.push((kind, fault));
        }
    }
    in_parallel(cases, |_, (kind, fault)| {
        let what = format!("{} meets {fault:?}", kind.name);
        let rule = Rule::new(kind.path, fault).method(kind.method);
        let proxy = FaultProxy::start(sharing.server.address(), Faults::none().with(rule))
            .expect("a proxy");
        let repository = format!("{}/team/cache", proxy.address());
        let project = project();
        let run = project.run_shared(&repository, &["--remote-cache-mode", "read-only"]);
        assert_right(&project, &run, &what);
        let executed = run
            .outcomes()
            .values()
            .any(|outcome| outcome == "succeeded");
        // Also where a redirection leads to nothing.
        let plain_miss =
            what.contains("404") || what.starts_with("a lookup") && what.contains("307");
        assert!(
            !executed || warned(&run) || plain_miss,
            "{what}: nobody says why nothing was taken from the cache: {:?} {}",
            run.notices(),
            run.stderr
        );
        project.assert_clean();
    });
}

#[test]
fn a_writer_to_a_registry_that_misbehaves_gets_right_results_heavy() {
    let sharing = require!(Sharing::new());
    require!(Project::new(FILE));
    let mut cases = Vec::new();
    for kind in &WRITES {
        for fault in everywhere() {
            cases.push((kind, fault));
        }
        if matches!(kind.method, "PATCH" | "PUT") {
            cases.extend(to_uploads().into_iter().map(|fault| (kind, fault)));
        }
    }
    in_parallel(cases, |number, (kind, fault)| {
        // A registry that says yes to a manifest and does not keep it is found out by who asks for it.
        let what = match &fault {
            Fault::Answer { body, .. } if !body.is_empty() => {
                format!("{} meets a captive portal", kind.name)
            }
            fault => format!("{} meets {fault:?}", kind.name),
        };
        let rule = Rule::new(kind.path, fault).method(kind.method);
        let proxy = FaultProxy::start(sharing.server.address(), Faults::none().with(rule))
            .expect("a proxy");
        let name = format!("writes/{number}");
        let writer = project();
        let run = writer.run_shared(&format!("{}/{name}", proxy.address()), &[]);
        assert_right(&writer, &run, &what);
        writer.assert_clean();
        // Whatever of it has arrived, nobody gets anything wrong.
        let reader = project();
        let direct = format!("{}/{name}", sharing.server.address());
        let read = reader.run_shared(&direct, &[]);
        assert_right(&reader, &read, &what);
        let shared = read.outcomes().values().all(|outcome| outcome == "cached");
        assert!(
            shared || warned(&run) || what.contains("captive"),
            "{what}: nobody says that results were not shared: {:?} {}",
            run.notices(),
            run.stderr
        );
    });
}

#[test]
fn what_goes_wrong_once_is_tried_again() {
    let sharing = require!(Sharing::new());
    require!(Project::new(FILE));
    let filled = project();
    filled.run_shared(&sharing.repository(), &[]).exits_with(0);
    let faults = [
        Fault::Drop,
        Fault::status(503),
        Fault::too_many_requests(1),
        Fault::CutAfter(20),
    ];
    let mut cases = Vec::new();
    for kind in &READS {
        cases.extend(faults.iter().map(|fault| (kind, fault.clone())));
    }
    in_parallel(cases, |_, (kind, fault)| {
        let what = format!("{} meets {fault:?} once", kind.name);
        let rule = Rule::new(kind.path, fault).method(kind.method).once();
        let proxy = FaultProxy::start(sharing.server.address(), Faults::none().with(rule))
            .expect("a proxy");
        let project = project();
        let run = project.run_shared(&format!("{}/team/cache", proxy.address()), &[]);
        assert_right(&project, &run, &what);
        let cached = run.outcomes().values().all(|outcome| outcome == "cached");
        assert!(cached, "{what}: {:?}", run.notices());
    });
}

#[test]
fn a_registry_that_is_down_costs_one_warning() {
    let mut sharing = require!(Sharing::new());
    require!(Project::new(FILE));
    let repository = sharing.repository();
    sharing.server.stop();
    let one = project();
    let run = one.run_shared(&repository, &[]);
    assert_right(&one, &run, "a registry that is down");
    assert!(warned(&run), "{:#?}", run.all);
    // Once for what was asked, once for what was given, and that neither is tried any more.
    let lines = run.stderr.matches("shared cache").count();
    assert!(lines <= 4, "{}", run.stderr);
    // Up again: the results of the run are here, and are not asked for; the next one shares.
    sharing.server.restart().expect("a registry");
    let again = one.run_shared(&repository, &[]);
    assert_right(&one, &again, "the registry is back");
    one.assert_clean();
}

#[test]
fn blobs_that_rot_in_the_registry_are_not_taken() {
    let sharing = require!(Sharing::new());
    require!(Project::new(FILE));
    let filled = project();
    filled.run_shared(&sharing.repository(), &[]).exits_with(0);
    let blobs = sharing.server.blobs().expect("blobs");
    assert!(blobs.len() >= 6, "{blobs:?}");
    in_parallel(blobs, |number, digest| {
        let file = sharing.server.blob(&digest);
        let whole = std::fs::read(&file).expect("a blob");
        let mut rotten = whole.clone();
        rotten[whole.len() / 2] ^= 1;
        // One blob at a time is damaged: each case restores it, and those beside it must not
        // see it. Hence a registry's copy of the storage for each.
        let copy = Sharing::new().expect("a registry");
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .arg(sharing.server.storage())
            .arg(copy.server.storage().parent().expect("a parent"))
            .status()
            .expect("cp");
        assert!(copied.success());
        let what = format!("blob {number} {digest}");
        std::fs::write(copy.server.blob(&digest), &rotten).expect("a blob");
        let project = project();
        let run = project.run_shared(&copy.repository(), &["--remote-cache-mode", "read-only"]);
        assert_right(&project, &run, &what);
        std::fs::remove_file(copy.server.blob(&digest)).expect("a blob");
        let other = super::faults::project();
        let run = other.run_shared(&copy.repository(), &["--remote-cache-mode", "read-only"]);
        assert_right(&other, &run, &what);
    });
}
