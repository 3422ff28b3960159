//! Programs that use the backend and are killed at any moment: what they leave is removed by the next one of the same owner, and
//! nothing that they ran goes on. The killed programs are this test binary, started again.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, and victims speak"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hm_vm_core::{NullSink, SnapshotLabel, Vm, VmBackend, VmConfig};
use hm_vm_docker::DockerBackend;
use hm_vm_testkit::engines::{IMAGE, TestEngine};
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;
use support::{held, open, owner, remove_all, until};

const SOCKET: &str = "HMVM_DOCKER_TEST_SOCKET";
const STATE: &str = "HMVM_DOCKER_TEST_STATE";
const SOURCE: &str = "HMVM_DOCKER_TEST_SOURCE";
const MARKER: &str = "HMVM_DOCKER_TEST_MARKER";

/// Programs that are killed in one round.
const AT_ONCE: usize = 8;

/// What a victim says that it begins.
const PHASES: [&str; 6] = ["open", "create", "inject", "exec", "snapshot", "restore"];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn say(phase: &str) {
    println!("\n@{phase}");
}

/// Not a test: what the others kill.
#[test]
#[ignore = "runs for ever: it is the process that other tests kill"]
fn victim() {
    let variable = |name| std::env::var(name).expect("a variable");
    let (socket, state) = (variable(SOCKET), variable(STATE));
    let (source, marker) = (variable(SOURCE), variable(MARKER));
    say("open");
    let backend = open(Path::new(&socket), Path::new(&state));
    runtime().block_on(async {
        loop {
            one_life(&backend, Path::new(&source), &marker).await;
        }
    });
}

/// Both files of a snapshot are of one command: who sees one without the other sees a torn snapshot.
async fn one_life(backend: &DockerBackend, source: &Path, marker: &str) {
    let config = VmConfig::default();
    let label = SnapshotLabel::Cached("killed".into());
    let cmd = format!(
        "cat /proc/sys/kernel/random/uuid > /one; sleep 0.03; cp /one /two; : {marker}; sleep 1000 &"
    );
    say("create");
    let mut vm = backend.create(IMAGE, &config).await.expect("a VM");
    say("inject");
    vm.inject(source, "/brought").await.expect("an inject");
    for _ in 0..2 {
        say("exec");
        let code = vm.exec(&cmd, &[], "/", &NullSink).await;
        assert_eq!(code.expect("an end"), 0);
        say("snapshot");
        let id = vm.snapshot(&label).await.expect("a snapshot");
        say("restore");
        let mut next = backend.restore(&id, &config).await.expect("a fork");
        std::mem::swap(&mut vm, &mut next);
        drop(next);
        // The middle of a chain goes, too.
        let removed = backend.remove_snapshot(&id).await;
        removed.expect("a removal");
        let label = SnapshotLabel::Ephemeral;
        vm.snapshot(&label).await.expect("a second snapshot");
    }
}

/// When to kill: so many nanoseconds after a phase has begun for the nth time.
#[derive(Clone, Copy, Debug)]
struct Moment {
    phase: usize,
    nth: usize,
    after: Duration,
}

impl Moment {
    fn random(random: &mut u64) -> Self {
        let mut next = |below: u64| {
            // xorshift64
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            *random % below
        };
        let phase = usize::try_from(next(PHASES.len() as u64)).unwrap();
        let nth = if phase == 0 { 1 } else { next(3) + 1 };
        // Squared: most of what matters happens early.
        let part = next(1000);
        Self {
            phase,
            nth: usize::try_from(nth).unwrap(),
            after: Duration::from_nanos(part * part * 200),
        }
    }
}

/// Lets a victim live until that moment, and kills it.
fn kill_at(moment: Moment, socket: &Path, root: &TestRoot, marker: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(SOCKET, socket)
        .env(STATE, root.join("state"))
        .env(SOURCE, root.join("source"))
        .env(MARKER, marker)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let wanted = format!("@{}", PHASES[moment.phase]);
    let mut seen = 0;
    let mut words = String::new();
    // Open to the end: the victim goes on to speak.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.by_ref().map_while(Result::ok) {
        seen += usize::from(line == wanted);
        words.push_str(&line);
        words.push('\n');
        if seen == moment.nth {
            break;
        }
    }
    std::thread::sleep(moment.after);
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ended.is_none(), "the victim ended by itself: {words}");
    assert_eq!(seen, moment.nth, "{moment:?}: {words}");
}

/// Processes of this machine that have `marker` in their command line.
fn processes_with(marker: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .filter(|line| line.contains(marker))
        .collect()
}

/// Every snapshot that is there is whole, and can be removed.
fn snapshots_are_whole(backend: &DockerBackend) {
    let listed = backend.snapshots().expect("a list");
    runtime().block_on(async {
        let mut seen = BTreeSet::new();
        for snapshot in listed {
            assert!(seen.insert(snapshot.id.to_string()), "{seen:?}");
            let vm = backend.restore(&snapshot.id, &VmConfig::default()).await;
            let mut vm = vm.expect("a fork of what is listed");
            let whole = "cmp /one /two && test -s /one && test -e /brought/file";
            assert_eq!(vm.exec(whole, &[], "/", &NullSink).await.unwrap(), 0);
            vm.destroy().await.unwrap();
            backend.remove_snapshot(&snapshot.id).await.unwrap();
        }
    });
}

fn killed_at_any_moment(engine: &Arc<TestEngine>, rounds: usize) {
    let root = TestRoot::new().unwrap();
    std::fs::create_dir(root.join("source")).unwrap();
    std::fs::write(root.join("source/file"), "x").unwrap();
    let mut random = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    println!("seed {random}");
    let began = std::time::Instant::now();
    let socket = engine.socket().to_owned();
    // A session of the same owner that lives on: nothing of it is touched.
    let survivor = open(&socket, &root.join("state"));
    let owner = owner(&root.join("state"));
    let living = runtime().block_on(survivor.create(IMAGE, &VmConfig::default()));
    let mut living = living.expect("a VM");
    let exec = |vm: &mut Box<dyn Vm>, cmd: &str| {
        runtime()
            .block_on(vm.exec(cmd, &[], "/", &NullSink))
            .unwrap()
    };
    assert_eq!(exec(&mut living, "echo x > /kept"), 0);
    let at_first = held(engine, &owner);
    for round in 0..rounds {
        let marker = format!("hmvm-victim-{}-{round}", std::process::id());
        let moments: Vec<Moment> = (0..AT_ONCE).map(|_| Moment::random(&mut random)).collect();
        println!("{:?}: round {round}: {moments:?}", began.elapsed());
        std::thread::scope(|scope| {
            for moment in moments {
                let (socket, root, marker) = (&socket, &root, &marker);
                scope.spawn(move || kill_at(moment, socket, root, marker));
            }
        });
        // Nobody is there who could end them.
        until("still running", || processes_with(&marker));
        let next = open(&socket, &root.join("state"));
        until("left by the dead", || {
            next.flush();
            held(engine, &owner)
                .into_iter()
                .filter(|thing| !thing.starts_with("image") || !is_snapshot(thing))
                .filter(|thing| !at_first.contains(thing))
                .collect()
        });
        snapshots_are_whole(&next);
        // What others were made from goes with the last of them.
        until("left in the end", || {
            next.collect_leftovers().unwrap();
            next.flush();
            let held = held(engine, &owner).into_iter();
            held.filter(|thing| !at_first.contains(thing)).collect()
        });
        assert_eq!(exec(&mut living, "test -e /kept"), 0);
    }
    runtime().block_on(living.destroy()).unwrap();
    drop((living, survivor));
    until("left by all", || held(engine, &owner));
    remove_all(engine, &owner);
}

/// A snapshot, or what one was made from that is no snapshot any more: that goes with its last child.
fn is_snapshot(image: &str) -> bool {
    [":s-", ":g-", "[]", "<none>:<none>"]
        .iter()
        .any(|tag| image.contains(tag))
}

#[test]
fn killed_at_any_moment_on_docker() {
    killed_at_any_moment(&require!(TestEngine::docker()), 10);
}

#[test]
fn killed_at_any_moment_on_podman() {
    killed_at_any_moment(&require!(TestEngine::podman()), 3);
}
