//! Connections that are cut and daemons that die: an error, never a success, and no wait without an end.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hm_vm_core::{OutputSink, Vm, VmBackend, VmConfig};
use hm_vm_docker::DockerBackend;
use hm_vm_testkit::engines::{IMAGE, TestEngine};
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;
use support::proxy::Proxy;
use support::{held, open, owner, remove_all, until};

/// Lines of the command whose connection is cut.
const LINES: u64 = 20_000;

/// Prints [`LINES`] lines and says so by its exit code.
fn talker() -> String {
    format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; exit 7")
}

/// Counts lines, and does something at one of them.
struct Counter<F> {
    lines: AtomicU64,
    at: u64,
    act: F,
}

impl<F: Fn() + Send + Sync> Counter<F> {
    fn new(at: u64, act: F) -> Self {
        let lines = AtomicU64::new(0);
        Self { lines, at, act }
    }

    fn count(&self) -> u64 {
        self.lines.load(Ordering::SeqCst)
    }
}

impl<F: Fn() + Send + Sync> OutputSink for Counter<F> {
    fn on_stdout(&self, _: &str) {
        if self.lines.fetch_add(1, Ordering::SeqCst) + 1 == self.at {
            (self.act)();
        }
    }

    fn on_stderr(&self, _: &str) {}
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Nothing here may take for ever.
fn bounded<T>(work: impl Future<Output = T>) -> T {
    let limited = async { tokio::time::timeout(Duration::from_secs(120), work).await };
    runtime().block_on(limited).expect("an end")
}

fn vm(backend: &DockerBackend) -> Box<dyn Vm> {
    bounded(backend.create(IMAGE, &VmConfig::default())).unwrap()
}

/// Runs the talker. Success is allowed only where nothing is missing. Returns whether it succeeded.
fn talk(vm: &mut Box<dyn Vm>, at: u64, act: impl Fn() + Send + Sync) -> bool {
    let sink = Counter::new(at, act);
    match bounded(vm.exec(&talker(), &[], "/", &sink)) {
        Ok(code) => {
            assert_eq!((code, sink.count()), (7, LINES), "a success with holes");
            true
        }
        Err(_) => false,
    }
}

fn cuts_are_errors(engine: &TestEngine) {
    let root = TestRoot::new().unwrap();
    let proxy = Proxy::start(&root.join("proxy"), engine.socket());
    let backend = open(proxy.socket(), &root.join("state"));
    // All connections at once, in the middle of the output.
    let mut lost = vm(&backend);
    let cut = talk(&mut lost, LINES / 2, || proxy.cut());
    assert!(!cut, "the connection was cut in the middle");
    // The VM may be lost, but says so, and the backend goes on.
    let again = bounded(lost.exec("exit 3", &[], "/", &hm_vm_core::NullSink));
    assert!(!matches!(again, Ok(code) if code != 3), "{again:?}");
    bounded(lost.destroy()).unwrap();
    // The command's connection alone, anywhere: in the first frame's header, between lines, and in the last bytes, which
    // are the report.
    let mut ends = [0; 2];
    let total = {
        proxy.cut_after(0);
        let mut whole = vm(&backend);
        assert!(talk(&mut whole, 0, || {}));
        bounded(whole.destroy()).unwrap();
        // About what the lines have; frames come on top.
        LINES * 10
    };
    let few = [1, 7, 8, 9, 40, 100, 200, 1000, total / 3, total, 10 * total];
    for bytes in few {
        proxy.cut_after(bytes);
        let mut cut = vm(&backend);
        ends[usize::from(talk(&mut cut, 0, || {}))] += 1;
        bounded(cut.destroy()).unwrap();
    }
    assert!(ends[0] >= few.len() - 3 && ends[1] >= 1, "{ends:?}");
    proxy.cut_after(0);
    let owner = owner(&root.join("state"));
    until("left behind", || {
        backend.flush();
        held(engine, &owner)
    });
    drop(backend);
    remove_all(engine, &owner);
}

#[test]
fn cuts_are_errors_on_docker() {
    cuts_are_errors(&*require!(TestEngine::docker()));
}

#[test]
fn cuts_are_errors_on_podman() {
    cuts_are_errors(&*require!(TestEngine::podman()));
}

fn processes_with(marker: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .filter(|line| line.contains(marker))
        .collect()
}

/// Kills the engine while a command runs. Returns what is in that command's line.
fn a_killed_daemon(engine: &TestEngine, state: &Path) -> String {
    let backend = open(engine.socket(), state);
    let mut vm = vm(&backend);
    let marker = format!("hmvm-orphan-{}", std::process::id());
    let cmd = format!("echo here; sleep 1000; : {marker}");
    let sink = Counter::new(1, || engine.kill());
    let ended = bounded(vm.exec(&cmd, &[], "/", &sink));
    assert!(ended.is_err(), "the daemon died: {ended:?}");
    let again = bounded(vm.exec("true", &[], "/", &sink));
    assert!(again.is_err(), "the daemon is dead: {again:?}");
    let snapshot = bounded(vm.snapshot(&hm_vm_core::SnapshotLabel::Ephemeral));
    assert!(snapshot.is_err(), "the daemon is dead: {snapshot:?}");
    let created = bounded(backend.create(IMAGE, &VmConfig::default()));
    assert!(created.is_err(), "the daemon is dead");
    drop(backend);
    marker
}

#[test]
fn a_killed_docker_is_an_error() {
    let engine = require!(TestEngine::own_docker());
    let root = TestRoot::new().unwrap();
    // What ran goes on until the next daemon ends it, as it does with all containers of its predecessor.
    a_killed_daemon(&engine, &root.join("state"));
}

#[test]
fn a_killed_podman_is_an_error() {
    let engine = require!(TestEngine::own_podman());
    let root = TestRoot::new().unwrap();
    let marker = a_killed_daemon(&engine, &root.join("state"));
    // The helper's input has ended with the service, and so has all that it ran.
    until("still running", || processes_with(&marker));
}
