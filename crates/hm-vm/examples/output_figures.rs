//! Prints what a lot of output costs on its way from the backend to the sink and the log: `cargo run --release
//! -p hm-vm --example output_figures [MIB]`; and what a hit with a log costs.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people at a terminal"
)]

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hm_vm::output::{LogNext, LogReader};
use hm_vm::{
    Action, CachingPolicy, ExecuteOptions, HmVm, ImageRegistry, ImageSource, NullSink, OutputSink,
    Secret, SnapshotId, SnapshotLabel, Stream, Vm, VmBackend, VmConfig,
};

/// What a pipe holds.
const CHUNK: usize = 64 << 10;

/// A backend whose commands write a number of chunks.
#[derive(Debug)]
struct Talker(usize);

struct Machine(usize);

#[async_trait]
impl VmBackend for Talker {
    async fn create(&self, _: &str, _: &VmConfig) -> anyhow::Result<Box<dyn Vm>> {
        Ok(Box::new(Machine(self.0)))
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
        cmd: &str,
        _: &[(String, String)],
        _: &str,
        sink: &dyn OutputSink,
    ) -> anyhow::Result<i32> {
        if cmd == "short" {
            sink.on_bytes(Stream::Stdout, b"a line\nand another one\n");
            return Ok(0);
        }
        let mut random = 1_u64;
        let text: Vec<u8> = (0..)
            .flat_map(|number: u32| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let hash = random >> 20;
                format!("   Compiling crate-{number} v0.1.{hash:x} (/src/{number}/of/many)\n")
                    .into_bytes()
            })
            .take(16 * CHUNK)
            .collect();
        for number in 0..self.0 {
            let start = number % 15 * CHUNK + number % 1024;
            sink.on_bytes(Stream::Stdout, &text[start..start + CHUNK]);
            tokio::task::yield_now().await;
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

#[derive(Default)]
struct Lines(AtomicU64);

impl OutputSink for Lines {
    fn on_stdout(&self, line: &str) {
        self.0.fetch_add(line.len() as u64, Ordering::Relaxed);
    }
    fn on_stderr(&self, line: &str) {
        self.on_stdout(line);
    }
}

/// Processor time of this thread so far: a busy machine does not count.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split_whitespace().next().unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}

fn peak_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.unwrap_or_default()
        .split_whitespace()
        .nth(1)
        .unwrap_or("?")
        .to_owned()
}

fn action(cmd: &str) -> Action {
    Action {
        source: ImageSource::Image("x".into()),
        cmd: cmd.into(),
        env: vec![],
        working_dir: "/".into(),
        timeout: None,
        inject: None,
    }
}

fn main() {
    let mib: usize = std::env::args()
        .nth(1)
        .map_or(1024, |text| text.parse().unwrap());
    let directory = tempfile::tempdir_in(".").unwrap();
    let path = directory.path();
    let capacity = NonZeroU64::new(10_000).unwrap();
    let registry = ImageRegistry::open(&path.join("registry.db"), capacity).unwrap();
    let backend = Arc::new(Talker(mib * 16));
    let engine = HmVm::new(backend, registry, VmConfig::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let lines = Lines::default();
    let rate = |name: &str, start: (Instant, Duration)| {
        let rate = mib as f64 / start.0.elapsed().as_secs_f64();
        let alone = mib as f64 / (processor_time() - start.1).as_secs_f64();
        println!(
            "{name:<32} {rate:>8.0} MiB/s, {alone:>8.0} of processor time; peak memory {} KiB",
            peak_kib()
        );
    };
    for (name, key, log, mask, sink) in [
        (
            "bytes, not recorded",
            None,
            None,
            false,
            &NullSink as &dyn OutputSink,
        ),
        ("lines, not recorded", None, None, false, &lines),
        ("bytes, masked", None, None, true, &NullSink),
        ("bytes, recorded", Some("a"), None, false, &NullSink),
        (
            "bytes, recorded, log",
            Some("b"),
            Some("b.log"),
            false,
            &NullSink,
        ),
        (
            "lines, recorded, log, masked",
            Some("c"),
            Some("c.log"),
            true,
            &lines,
        ),
        ("hit, bytes", Some("c"), None, false, &NullSink),
        ("hit, lines", Some("c"), None, false, &lines),
    ] {
        let options = ExecuteOptions {
            log: log.map(|log| path.join(log)),
            masked: if mask {
                vec![
                    Secret::new(b"hunter2".to_vec()),
                    Secret::new(b"correct horse battery".to_vec()),
                ]
            } else {
                Vec::new()
            },
            ..ExecuteOptions::default()
        };
        let policy = key.map_or(CachingPolicy::None, |key| CachingPolicy::Cache {
            key: key.into(),
        });
        let start = (Instant::now(), processor_time());
        let run = engine.execute_with(action("talk"), policy, sink, options);
        runtime.block_on(run).unwrap();
        rate(name, start);
    }
    let start = (Instant::now(), processor_time());
    let mut reader = LogReader::open(&path.join("c.log")).unwrap();
    while let LogNext::Chunk(_) = reader.next().unwrap() {}
    assert!(reader.complete());
    rate("reading the log", start);
    hits(&engine, &runtime, path);
}

fn hits(engine: &HmVm, runtime: &tokio::runtime::Runtime, path: &Path) {
    let mut times: Vec<Duration> = Vec::new();
    for round in 0..3000 {
        let options = ExecuteOptions {
            log: Some(path.join(format!("hit-{round}.log"))),
            same_parent: true,
            ..ExecuteOptions::default()
        };
        let policy = CachingPolicy::Cache {
            key: format!("short {}", round % 1000),
        };
        let start = Instant::now();
        let run = engine.execute_with(action("short"), policy, &NullSink, options);
        let result = runtime.block_on(run).unwrap();
        if result.cached {
            times.push(start.elapsed());
        }
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("hit with a log: median {median:?}, p99 {worst:?}");
}
