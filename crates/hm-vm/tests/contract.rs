//! Code as a user of the fixed contract writes it, and what it may expect.
//!
//! The backend here implements only what the contract requires, in the words of the contract.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

// By module path.
use hm_vm::backend::{Vm as VmByPath, VmBackend as VmBackendByPath};
use hm_vm::registry::ImageRegistry as RegistryByPath;
use hm_vm::types::{
    Action as ActionByPath, CachingPolicy as PolicyByPath, ExecutionResult as ResultByPath,
    ImageSource as SourceByPath, NullSink as NullSinkByPath, OutputSink as SinkByPath,
    SnapshotId as IdByPath, SnapshotLabel as LabelByPath, VmConfig as ConfigByPath,
};
use hm_vm::vm::HmVm as EngineByPath;
// From the root.
use hm_vm::{
    Action, CachingPolicy, ExecutionResult, HmVm, ImageRegistry, ImageSource, NullSink, OutputSink,
    SnapshotId, SnapshotLabel, Vm, VmBackend, VmConfig,
};

#[derive(Debug, Default)]
struct Journal {
    calls: Vec<String>,
    snapshots: HashSet<String>,
    alive: usize,
}

#[derive(Clone, Debug, Default)]
struct Plain(Arc<Mutex<Journal>>);

impl Plain {
    fn note(&self, call: impl Into<String>) -> std::sync::MutexGuard<'_, Journal> {
        let mut journal = self.0.lock().unwrap();
        journal.calls.push(call.into());
        journal
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    fn alive(&self) -> usize {
        self.0.lock().unwrap().alive
    }
}

struct PlainVm(Plain);

#[async_trait]
impl VmBackend for Plain {
    async fn create(&self, image: &str, _config: &VmConfig) -> Result<Box<dyn Vm>> {
        self.note(format!("create {image}")).alive += 1;
        Ok(Box::new(PlainVm(self.clone())))
    }

    async fn restore(&self, snapshot: &SnapshotId, _config: &VmConfig) -> Result<Box<dyn Vm>> {
        self.note(format!("restore {snapshot}")).alive += 1;
        Ok(Box::new(PlainVm(self.clone())))
    }

    async fn snapshot_exists(&self, snapshot: &SnapshotId) -> Result<bool> {
        let journal = self.note(format!("exists {snapshot}"));
        Ok(journal.snapshots.contains(snapshot.as_ref()))
    }

    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<()> {
        let mut journal = self.note(format!("remove {snapshot}"));
        journal.snapshots.remove(&**snapshot);
        Ok(())
    }
}

#[async_trait]
impl Vm for PlainVm {
    async fn inject(&self, host_path: &Path, guest_path: &str) -> Result<()> {
        drop(
            self.0
                .note(format!("inject {} {guest_path}", host_path.display())),
        );
        Ok(())
    }

    async fn exec(
        &self,
        cmd: &str,
        env: &[(String, String)],
        working_dir: &str,
        sink: &dyn OutputSink,
    ) -> Result<i32> {
        drop(self.0.note(format!("exec {cmd} {env:?} {working_dir}")));
        sink.on_stdout("out");
        sink.on_stderr("err");
        match cmd {
            "hang" => std::future::pending().await,
            "break" => anyhow::bail!("broken"),
            code => Ok(code.parse().unwrap_or(0)),
        }
    }

    async fn snapshot(&mut self, label: &SnapshotLabel) -> Result<SnapshotId> {
        let mut journal = self.0.note(format!("snapshot {label:?}"));
        let id = format!("snapshot-{}", journal.snapshots.len() + 1);
        journal.snapshots.insert(id.clone());
        Ok(SnapshotId::new(id))
    }

    async fn destroy(&mut self) -> Result<()> {
        self.0.note("destroy").alive -= 1;
        Ok(())
    }
}

fn action(cmd: &str) -> Action {
    Action {
        source: ImageSource::Image("image".into()),
        cmd: cmd.into(),
        env: vec![("A".into(), "1".into())],
        working_dir: "/work".into(),
        timeout: None,
        inject: None,
    }
}

fn cache(key: &str) -> CachingPolicy {
    CachingPolicy::Cache { key: key.into() }
}

fn engine(directory: &Path, backend: &Plain) -> HmVm {
    let registry =
        ImageRegistry::open(&directory.join("deep/registry.db"), NonZeroU64::MIN).unwrap();
    let config = VmConfig {
        cpus: Some(2),
        memory_mib: Some(512),
        disk_size_gb: Some(1),
        ..Default::default()
    };
    HmVm::new(Arc::new(backend.clone()), registry, config)
}

fn is_send_and_sync<T: Send + Sync + std::fmt::Debug>() {}
fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn the_types_have_their_shapes() {
    is_send_and_sync::<HmVm>();
    is_send_and_sync::<ImageRegistry>();
    is_send_and_sync::<Arc<dyn VmBackend>>();
    let _: (Option<ActionByPath>, Option<PolicyByPath>) = (None, None);
    let _: (Option<SourceByPath>, Option<ConfigByPath>) = (None, None);
    let _: Option<EngineByPath> = None;
    let _: Option<RegistryByPath> = None;
    let _: Option<Box<dyn VmByPath>> = None;
    let _: Option<Box<dyn VmBackendByPath>> = None;
    let _: &dyn SinkByPath = &NullSinkByPath;

    let id: SnapshotId = IdByPath::new("x");
    assert_eq!((id.as_ref(), &*id, id.to_string()), ("x", "x", "x".into()));
    assert_eq!(HashSet::from([id.clone(), id.clone()]).len(), 1);
    assert_eq!(
        SnapshotLabel::Cached("k".into()),
        LabelByPath::Cached("k".into())
    );
    assert_ne!(SnapshotLabel::Ephemeral, SnapshotLabel::Cached("k".into()));
    let result: ResultByPath = ExecutionResult::default();
    assert_eq!(
        (result.exit_code, result.snapshot, result.cached),
        (0, None, false)
    );
}

#[tokio::test]
async fn a_miss_runs_everything_in_order_and_a_hit_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Plain::default();
    let engine = engine(directory.path(), &backend);
    let mut with_inject = action("0");
    with_inject.inject = Some(PathBuf::from("/host/dir"));
    with_inject.timeout = Some(Duration::from_secs(60));
    let first = is_send(engine.execute(with_inject.clone(), cache("k"), &NullSink))
        .await
        .unwrap();
    assert_eq!((first.exit_code, first.cached), (0, false));
    assert_eq!(
        backend.take(),
        [
            "create image",
            "inject /host/dir /work",
            "exec 0 [(\"A\", \"1\")] /work",
            "snapshot Cached(\"k\")",
            "destroy",
        ]
    );
    let second = engine
        .execute(with_inject, cache("k"), &NullSink)
        .await
        .unwrap();
    assert_eq!((second.exit_code, second.cached), (0, true));
    assert_eq!(second.snapshot, first.snapshot);
    assert_eq!(backend.take(), ["exists snapshot-1"]);
    assert_eq!(backend.alive(), 0);
}

#[tokio::test]
async fn a_lost_snapshot_is_forgotten_and_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Plain::default();
    let engine = engine(directory.path(), &backend);
    let first = engine
        .execute(action("0"), cache("k"), &NullSink)
        .await
        .unwrap();
    engine
        .remove_snapshot(&first.snapshot.unwrap())
        .await
        .unwrap();
    let second = engine
        .execute(action("0"), cache("k"), &NullSink)
        .await
        .unwrap();
    assert!(!second.cached && second.snapshot.is_some());
}

#[tokio::test]
async fn a_fork_restores_and_an_uncached_run_is_ephemeral() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Plain::default();
    let engine = engine(directory.path(), &backend);
    let mut fork = action("0");
    fork.source = ImageSource::Snapshot(SnapshotId::new("parent"));
    let result = engine
        .execute(fork, CachingPolicy::None, &NullSink)
        .await
        .unwrap();
    assert!(result.snapshot.is_some() && !result.cached);
    assert_eq!(
        backend.take(),
        [
            "restore parent",
            "exec 0 [(\"A\", \"1\")] /work",
            "snapshot Ephemeral",
            "destroy",
        ]
    );
    assert!(engine.registry().is_empty());
}

#[tokio::test]
async fn an_exit_code_is_a_result_and_a_failure_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Plain::default();
    let engine = engine(directory.path(), &backend);
    let failed = engine
        .execute(action("3"), cache("k"), &NullSink)
        .await
        .unwrap();
    assert_eq!(
        (failed.exit_code, failed.snapshot, failed.cached),
        (3, None, false)
    );
    assert!(
        engine
            .execute(action("break"), cache("k"), &NullSink)
            .await
            .is_err()
    );
    let mut hang = action("hang");
    hang.timeout = Some(Duration::from_millis(20));
    let error = engine
        .execute(hang, cache("k"), &NullSink)
        .await
        .unwrap_err();
    assert_eq!(
        error.downcast_ref::<hm_vm::Error>(),
        Some(&hm_vm::Error::TimedOut {
            limit: Duration::from_millis(20)
        })
    );
    let calls = backend.take();
    assert_eq!(calls.iter().filter(|call| *call == "destroy").count(), 3);
    assert!(!calls.iter().any(|call| call.starts_with("snapshot")));
    assert!(engine.registry().is_empty());
}

#[tokio::test]
async fn what_put_hands_back_is_removed_from_the_backend() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Plain::default();
    let engine = engine(directory.path(), &backend);
    engine
        .execute(action("0"), cache("a"), &NullSink)
        .await
        .unwrap();
    engine
        .execute(action("0"), cache("b"), &NullSink)
        .await
        .unwrap();
    assert!(backend.take().contains(&"remove snapshot-1".to_owned()));
    assert_eq!(
        engine.registry().all_snapshot_ids(),
        [SnapshotId::new("snapshot-2")]
    );
}

#[tokio::test]
async fn a_dropped_execution_destroys_its_vm() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Plain::default();
    let engine = engine(directory.path(), &backend);
    let running = engine.execute(action("hang"), cache("k"), &NullSink);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), running)
            .await
            .is_err()
    );
    assert_eq!(backend.alive(), 0, "this backend frees only in destroy");
}
