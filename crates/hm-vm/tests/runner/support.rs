//! What the tests share.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hm_vm::output::{LogNext, LogReader};
use hm_vm::{
    Action, CachingPolicy, Event, EventSink, HmVm, ImageRegistry, ImageSource, OutputSink, Stream,
    VmConfig,
};
use hm_vm_testkit::fake::FakeBackend;
use tempfile::TempDir;

/// An engine on a fake backend, with a registry of its own.
pub(crate) struct Bench {
    pub(crate) engine: Arc<HmVm>,
    pub(crate) backend: FakeBackend,
    directory: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_capacity(100)
    }

    pub(crate) fn with_capacity(capacity: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let backend = FakeBackend::new();
        let engine = engine(&directory.path().join("registry.db"), &backend, capacity);
        Self {
            engine,
            backend,
            directory,
        }
    }

    pub(crate) fn registry_path(&self) -> PathBuf {
        self.directory.path().join("registry.db")
    }

    /// Another engine on the same backend and file, as another process would have.
    pub(crate) fn second_engine(&self) -> Arc<HmVm> {
        engine(&self.registry_path(), &self.backend, 100)
    }

    /// A path in a directory of the test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The files in a directory beside the registry, `locks` or `logs`, by name.
    pub(crate) fn files(&self, suffix: &str) -> Vec<String> {
        let mut dir = self.registry_path().into_os_string();
        dir.push(format!(".{suffix}"));
        let Ok(entries) = std::fs::read_dir(dir) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    }

    /// Asserts that nothing is alive, half-made or left over.
    pub(crate) fn assert_clean(&self, context: &str) {
        assert_eq!(self.backend.live_vms(), Vec::<u64>::new(), "{context}: VMs");
        assert_eq!(
            self.files("locks"),
            Vec::<String>::new(),
            "{context}: locks"
        );
        assert_eq!(
            self.files("logs/tmp"),
            Vec::<String>::new(),
            "{context}: logs"
        );
        let held = self.engine.registry().all_snapshot_ids();
        for (id, _) in self.backend.snapshots() {
            assert!(held.contains(&id), "{context}: snapshot {id} has no owner");
        }
        for id in held {
            assert!(
                self.backend
                    .snapshots()
                    .iter()
                    .any(|(there, _)| *there == id),
                "{context}: an entry without its snapshot"
            );
        }
    }
}

fn engine(path: &Path, backend: &FakeBackend, capacity: u64) -> Arc<HmVm> {
    let registry = ImageRegistry::open(path, NonZeroU64::new(capacity).unwrap()).unwrap();
    Arc::new(HmVm::new(
        Arc::new(backend.clone()),
        registry,
        VmConfig::default(),
    ))
}

pub(crate) fn action(cmd: &str) -> Action {
    Action {
        source: ImageSource::Image("alpine".into()),
        cmd: cmd.into(),
        env: vec![],
        working_dir: "/".into(),
        timeout: None,
        inject: None,
    }
}

pub(crate) fn cache(key: &str) -> CachingPolicy {
    CachingPolicy::Cache { key: key.into() }
}

/// Lets spawned tasks go on until they are done or parked.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Keeps lines.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<Vec<String>>);

impl Lines {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl OutputSink for Lines {
    fn on_stdout(&self, line: &str) {
        self.0.lock().unwrap().push(format!("out {line}"));
    }

    fn on_stderr(&self, line: &str) {
        self.0.lock().unwrap().push(format!("err {line}"));
    }
}

/// Keeps bytes.
#[derive(Debug, Default)]
pub(crate) struct Bytes(pub(crate) Mutex<Vec<(Stream, Vec<u8>)>>);

impl OutputSink for Bytes {
    fn on_stdout(&self, _: &str) {
        panic!("bytes were asked for");
    }

    fn on_stderr(&self, _: &str) {
        panic!("bytes were asked for");
    }

    fn wants_bytes(&self) -> bool {
        true
    }

    fn on_bytes(&self, stream: Stream, bytes: &[u8]) {
        self.0.lock().unwrap().push((stream, bytes.to_vec()));
    }
}

/// Keeps events, and wakes who waits for one.
#[derive(Debug, Default)]
pub(crate) struct Events {
    all: Mutex<Vec<Event>>,
    changed: tokio::sync::Notify,
}

impl Events {
    pub(crate) fn all(&self) -> Vec<Event> {
        self.all.lock().unwrap().clone()
    }

    pub(crate) fn notices(&self) -> Vec<String> {
        let notice = |event| match event {
            Event::Notice(text) => Some(text),
            _ => None,
        };
        self.all().into_iter().filter_map(notice).collect()
    }

    pub(crate) async fn until(&self, event: &Event) {
        loop {
            let changed = self.changed.notified();
            if self.all().contains(event) {
                return;
            }
            changed.await;
        }
    }
}

impl EventSink for Events {
    fn on_event(&self, event: &Event) {
        self.all.lock().unwrap().push(event.clone());
        self.changed.notify_one();
    }
}

/// All that a log has now, the bytes of each stream put together, and how it goes on.
pub(crate) fn read_log(reader: &mut LogReader) -> ([Vec<u8>; 2], LogNext) {
    let mut streams = [Vec::new(), Vec::new()];
    loop {
        match reader.next().unwrap() {
            LogNext::Chunk(chunk) => streams[chunk.stream as usize].extend(chunk.bytes),
            end => return (streams, end),
        }
    }
}

/// What is in a log that must be whole.
pub(crate) fn whole_log(path: &Path) -> [String; 2] {
    let mut reader = LogReader::open(path).unwrap();
    let (streams, end) = read_log(&mut reader);
    assert_eq!(end, LogNext::End);
    assert!(reader.complete() && !reader.writer_is_alive());
    streams.map(|stream| String::from_utf8(stream).unwrap())
}
