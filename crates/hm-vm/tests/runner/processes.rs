//! Several processes, one registry. The worker processes are this test binary, started again.

use std::io::{BufRead, BufReader, Lines, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use hm_vm::output::{LogNext, LogReader};
use hm_vm::{
    Event, EventSink, ExecuteOptions, HmVm, ImageRegistry, NullSink, OutputSink, Phase, SnapshotId,
    SnapshotLabel, Vm, VmBackend, VmConfig,
};

use super::support::{action, cache};

const ROLE: &str = "HMVM_ENGINE_TEST_ROLE";
const DIRECTORY: &str = "HMVM_ENGINE_TEST_DIRECTORY";

/// Snapshots are files; a command says that it runs, and ends when it is told to.
#[derive(Clone, Debug)]
struct Files(PathBuf);

#[async_trait]
impl VmBackend for Files {
    async fn create(&self, _: &str, _: &VmConfig) -> anyhow::Result<Box<dyn Vm>> {
        Ok(Box::new(self.clone()))
    }

    async fn restore(&self, _: &SnapshotId, _: &VmConfig) -> anyhow::Result<Box<dyn Vm>> {
        anyhow::bail!("not needed")
    }

    async fn snapshot_exists(&self, snapshot: &SnapshotId) -> anyhow::Result<bool> {
        Ok(self.0.join(&**snapshot).exists())
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> anyhow::Result<()> {
        drop(std::fs::remove_file(self.0.join(&**snapshot)));
        Ok(())
    }
}

#[async_trait]
impl Vm for Files {
    async fn inject(&self, _: &Path, _: &str) -> anyhow::Result<()> {
        Ok(())
    }

    async fn exec(
        &self,
        _: &str,
        _: &[(String, String)],
        _: &str,
        sink: &dyn OutputSink,
    ) -> anyhow::Result<i32> {
        sink.on_stdout("some output");
        say("exec");
        let told = tokio::task::spawn_blocking(|| std::io::stdin().lines().next().is_some());
        anyhow::ensure!(told.await?, "nobody is there");
        Ok(0)
    }

    async fn snapshot(&mut self, _: &SnapshotLabel) -> anyhow::Result<SnapshotId> {
        let id = SnapshotId::new(format!("snapshot-{}", std::process::id()));
        std::fs::write(self.0.join(&*id), "")?;
        Ok(id)
    }

    async fn destroy(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

struct Waits;

impl EventSink for Waits {
    fn on_event(&self, event: &Event) {
        if *event == Event::Started(Phase::Wait) {
            say("wait");
        }
    }
}

fn say(text: &str) {
    println!("\n@{text}");
}

/// What the worker processes run; without a role, nothing.
#[test]
fn worker() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    if role == "execute" {
        execute(&directory);
    } else if role == "log" {
        log(&directory);
    } else {
        hammer(&directory, &role);
    }
}

fn open(directory: &Path) -> ImageRegistry {
    ImageRegistry::open(&directory.join("registry.db"), NonZeroU64::new(20).unwrap()).unwrap()
}

fn execute(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let backend = Files(directory.join("snapshots"));
    let engine = HmVm::new(Arc::new(backend), open(directory), VmConfig::default());
    let options = ExecuteOptions {
        events: Some(Arc::new(Waits)),
        ..ExecuteOptions::default()
    };
    let run = engine.execute_with(action("true"), cache("k"), &NullSink, options);
    let result = runtime.block_on(run).unwrap();
    say(&format!("cached {}", result.cached));
}

/// Like [`execute`], with a log, and not cached.
fn log(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let backend = Files(directory.join("snapshots"));
    let engine = HmVm::new(Arc::new(backend), open(directory), VmConfig::default());
    let options = ExecuteOptions {
        log: Some(directory.join("log")),
        ..ExecuteOptions::default()
    };
    let policy = hm_vm::CachingPolicy::None;
    let run = engine.execute_with(action("true"), policy, &NullSink, options);
    runtime.block_on(run).unwrap();
}

/// Puts and gets at random; says which snapshots it was told to remove.
fn hammer(directory: &Path, name: &str) {
    let registry = open(directory);
    let mut random = u64::from(std::process::id());
    for round in 0..300 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let key = format!("key {}", (random >> 33) % 40);
        if round % 3 == 0 {
            registry.try_get(&key).unwrap();
            continue;
        }
        let id = SnapshotId::new(format!("{name}-{round}"));
        say(&format!("put {id}"));
        for freed in registry.try_put(&key, &id).unwrap() {
            say(&format!("freed {freed}"));
        }
    }
}

struct Worker {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(directory: &Path, role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "runner::processes::worker", "--nocapture"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            input,
            output: BufReader::new(output).lines(),
        }
    }

    fn says(&mut self) -> Option<String> {
        self.output
            .find_map(|line| line.unwrap().strip_prefix('@').map(str::to_owned))
    }

    fn go(&mut self) {
        self.input.write_all(b"go\n").unwrap();
    }

    fn end(mut self) {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
    }
}

fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("snapshots")).unwrap();
    directory
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn one_process_runs_and_the_other_gets_its_result() {
    let place = place();
    let mut leader = Worker::start(place.path(), "execute");
    assert_eq!(leader.says().as_deref(), Some("exec"));
    let mut follower = Worker::start(place.path(), "execute");
    assert_eq!(follower.says().as_deref(), Some("wait"));
    leader.go();
    assert_eq!(leader.says().as_deref(), Some("cached false"));
    assert_eq!(follower.says().as_deref(), Some("cached true"));
    leader.end();
    follower.end();
    assert_eq!(
        names(&place.path().join("registry.db.locks")),
        Vec::<String>::new()
    );
}

#[test]
fn another_process_takes_over_when_the_leader_is_killed() {
    let place = place();
    let mut leader = Worker::start(place.path(), "execute");
    assert_eq!(leader.says().as_deref(), Some("exec"));
    let mut follower = Worker::start(place.path(), "execute");
    assert_eq!(follower.says().as_deref(), Some("wait"));
    leader.child.kill().unwrap();
    leader.child.wait().unwrap();
    assert_eq!(follower.says().as_deref(), Some("exec"));
    let tmp = place.path().join("registry.db.logs/tmp");
    assert_eq!(
        names(&tmp).len(),
        2,
        "the dead one's log and the living one's"
    );
    drop(open(place.path()));
    assert_eq!(names(&tmp).len(), 1, "the living one's log");
    follower.go();
    assert_eq!(follower.says().as_deref(), Some("cached false"));
    follower.end();
    assert_eq!(names(&tmp), Vec::<String>::new());
    assert_eq!(
        names(&place.path().join("registry.db.locks")),
        Vec::<String>::new()
    );
}

#[test]
fn what_a_killed_process_leaves_is_collected_at_the_next_open() {
    let place = place();
    let mut leader = Worker::start(place.path(), "execute");
    assert_eq!(leader.says().as_deref(), Some("exec"));
    let left = ["registry.db.locks", "registry.db.logs/tmp"].map(|name| place.path().join(name));
    drop(open(place.path()));
    assert!(
        left.iter().all(|dir| names(dir).len() == 1),
        "the living are spared"
    );
    leader.child.kill().unwrap();
    leader.child.wait().unwrap();
    drop(open(place.path()));
    assert!(left.iter().all(|dir| names(dir).is_empty()));
}

#[test]
fn the_log_of_a_killed_process_can_be_read_as_far_as_it_goes() {
    let place = place();
    let mut worker = Worker::start(place.path(), "log");
    assert_eq!(worker.says().as_deref(), Some("exec"));
    let mut reader = LogReader::open(&place.path().join("log")).unwrap();
    let chunk = loop {
        match reader.next().unwrap() {
            LogNext::Chunk(chunk) => break chunk,
            LogNext::Pending => std::thread::yield_now(),
            LogNext::End => panic!("it has not ended"),
        }
    };
    assert_eq!(chunk.bytes, b"some output\n");
    assert!(reader.writer_is_alive());
    worker.child.kill().unwrap();
    worker.child.wait().unwrap();
    assert_eq!(reader.next().unwrap(), LogNext::Pending);
    assert!(!reader.writer_is_alive() && !reader.complete());
}

#[test]
fn many_processes_on_one_registry_hand_every_snapshot_back_once() {
    let place = place();
    let workers: Vec<Worker> = ["a", "b", "c", "d"]
        .map(|name| Worker::start(place.path(), name))
        .into();
    let (mut put, mut freed) = (Vec::new(), Vec::new());
    for mut worker in workers {
        while let Some(said) = worker.says() {
            match said.split_once(' ') {
                Some(("put", id)) => put.push(id.to_owned()),
                Some(("freed", id)) => freed.push(id.to_owned()),
                _ => panic!("{said}"),
            }
        }
        worker.end();
    }
    let registry = open(place.path());
    assert_eq!(registry.len(), 20);
    let held = registry.all_snapshot_ids();
    freed.extend(held.iter().map(|id| id.to_string()));
    put.sort();
    freed.sort();
    assert_eq!(
        put, freed,
        "each snapshot is held, or was handed back to one process"
    );
}
