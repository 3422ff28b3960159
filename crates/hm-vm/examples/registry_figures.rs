//! Prints what the registry and a cache hit cost: `cargo run --release -p hm-vm --example
//! registry_figures [ENTRIES]`. Times are medians of many operations, in microseconds.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people at a terminal"
)]

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hm_vm::{
    Action, CachingPolicy, HmVm, ImageRegistry, ImageSource, NullSink, OutputSink, SnapshotId,
    SnapshotLabel, Vm, VmBackend, VmConfig,
};

/// A backend whose snapshots always exist.
#[derive(Debug)]
struct Everything;

struct Machine(usize);

#[async_trait]
impl VmBackend for Everything {
    async fn create(&self, image: &str, _: &VmConfig) -> anyhow::Result<Box<dyn Vm>> {
        Ok(Box::new(Machine(image.parse()?)))
    }
    async fn restore(&self, _: &SnapshotId, _: &VmConfig) -> anyhow::Result<Box<dyn Vm>> {
        anyhow::bail!("not needed")
    }
    async fn snapshot_exists(&self, _: &SnapshotId) -> anyhow::Result<bool> {
        Ok(true)
    }
    async fn remove_snapshot(&self, _: &SnapshotId) -> anyhow::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Vm for Machine {
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
        for line in 0..self.0 {
            sink.on_stdout(&format!("line {line} of the output of a command"));
        }
        Ok(0)
    }
    async fn snapshot(&mut self, label: &SnapshotLabel) -> anyhow::Result<SnapshotId> {
        Ok(SnapshotId::new(format!("{label:?}")))
    }
    async fn destroy(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

fn median(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[times.len() * share / 100].as_nanos() as f64 / 1000.0;
    println!(
        "{name:<44} p10 {:>7.1}  median {:>7.1}  p99 {:>8.1}",
        at(10),
        at(50),
        at(99)
    );
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    let _value = work();
    start.elapsed()
}

fn key(number: u64) -> String {
    format!(
        "hm1-{:064x}",
        u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
    )
}

fn open(path: &Path, capacity: u64) -> ImageRegistry {
    ImageRegistry::open(path, NonZeroU64::new(capacity).unwrap()).unwrap()
}

fn main() {
    let entries: u64 = std::env::args()
        .nth(1)
        .map_or(1_000_000, |text| text.parse().unwrap());
    let directory = tempfile::tempdir_in(".").unwrap();
    hits(directory.path());
    million(&directory.path().join("million.db"), entries);
}

fn hits(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (lines, keys) in [(0, 1), (0, 1000), (10, 1), (1000, 1)] {
        let registry = open(&directory.join(format!("hits-{lines}-{keys}.db")), 10_000);
        let engine = HmVm::new(Arc::new(Everything), registry, VmConfig::default());
        let execute = |number: u64| {
            let action = Action {
                source: ImageSource::Image(lines.to_string()),
                cmd: "true".into(),
                env: vec![],
                working_dir: "/".into(),
                timeout: None,
                inject: None,
            };
            let policy = CachingPolicy::Cache { key: key(number) };
            let result = runtime
                .block_on(engine.execute(action, policy, &NullSink))
                .unwrap();
            result.cached
        };
        let misses = (0..keys)
            .map(|number| timed(|| assert!(!execute(number))))
            .collect();
        median(
            &format!("execute, miss, {lines} lines, {keys} keys"),
            misses,
        );
        let hits = (0..20_000)
            .map(|turn| timed(|| assert!(execute((turn * 7919) % keys))))
            .collect();
        median(&format!("execute, hit, {lines} lines, {keys} keys"), hits);
    }
}

fn million(path: &Path, entries: u64) {
    let registry = open(path, entries);
    let start = Instant::now();
    for number in 0..entries {
        registry
            .try_put(&key(number), &SnapshotId::new(format!("snapshot-{number}")))
            .unwrap();
    }
    println!("filled with {entries} in {:?}", start.elapsed());
    drop(registry);
    let opens = (0..20).map(|_| timed(|| open(path, entries))).collect();
    median("open", opens);
    let registry = open(path, entries);
    let gets = (0..20_000)
        .map(|turn| timed(|| assert!(registry.get(&key(turn * 7919 % entries)).is_some())))
        .collect();
    median("get", gets);
    let misses = (0..20_000)
        .map(|turn| timed(|| assert!(registry.get(&key(entries * 2 + turn)).is_none())))
        .collect();
    median("get, miss", misses);
    let puts = (0..20_000)
        .map(|turn| {
            let (key, snapshot) = (key(entries + turn), SnapshotId::new(format!("new-{turn}")));
            timed(|| assert_eq!(registry.try_put(&key, &snapshot).unwrap().len(), 1))
        })
        .collect();
    median("put with eviction", puts);
}
