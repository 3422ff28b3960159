//! A registry of a million entries.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hm_vm::{ImageRegistry, SnapshotId};

use crate::bench::Bench;
use crate::measure::{Racer, Who, race};
use crate::row::{Row, Target};
use crate::talk;

/// Opening, looking up, and putting with eviction.
pub(crate) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let count: u64 = if bench.quick { 20_000 } else { 1_000_000 };
    let capacity = NonZeroU64::new(count).context("capacity")?;
    let path = filled(&bench.folder, count, capacity)?;
    let theirs = bench
        .folder
        .join(format!("registry-docker-only-{count}.db"));
    let peer = bench.docker_only_registry();
    let open_theirs = format!("registry-open {count} {}", theirs.display());

    let open = race(vec![
        Racer::new(Who::Ours, bench.rounds(30), || {
            let start = Instant::now();
            drop(ImageRegistry::open(&path, capacity)?);
            Ok(start.elapsed())
        }),
        Racer::of(Who::DockerOnly, peer.clone(), bench.rounds(30), |peer| {
            peer.order(&open_theirs)
        }),
    ]);
    let registry = ImageRegistry::open(&path, capacity).context("opening the full registry")?;
    let scattered = Scattered::new(count);
    let get = race(vec![
        Racer::new(Who::Ours, bench.rounds(2000), || {
            let key = format!("key:{}", scattered.next());
            let start = Instant::now();
            registry.try_get(&key)?;
            Ok(start.elapsed())
        }),
        Racer::of(Who::DockerOnly, peer.clone(), bench.rounds(2000), |peer| {
            peer.order(&format!("registry-get key:{}", scattered.next()))
        }),
    ]);
    let run = std::process::id();
    let put = race(vec![
        Racer::new(Who::Ours, bench.rounds(2000), || {
            let key = format!("new:{run}:{}", scattered.next());
            let snapshot = SnapshotId::new(&*key);
            let start = Instant::now();
            registry.try_put(&key, &snapshot)?;
            Ok(start.elapsed())
        }),
        Racer::of(Who::DockerOnly, peer, bench.rounds(10), |peer| {
            peer.order(&format!("registry-put new:{run}:{}", scattered.next()))
        }),
    ]);
    let entries = if count == 1_000_000 {
        "a million".to_owned()
    } else {
        count.to_string()
    };
    let row = |id: &str, what: &str, outcomes, limit| {
        Row::new(
            id,
            format!("registry of {entries} entries: {what}"),
            outcomes,
        )
        .with_target(Target::AtMost(limit))
    };
    Ok(vec![
        row("registry-open", "open", open, Duration::from_millis(20)),
        row("registry-get", "get", get, Duration::from_micros(100)),
        row(
            "registry-put",
            "put with eviction",
            put,
            Duration::from_micros(100),
        ),
    ])
}

/// The file of an earlier run is used again: filling takes longer than measuring.
fn filled(folder: &Path, count: u64, capacity: NonZeroU64) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("registry-{count}/registry.db"));
    let full = |path: &Path| -> anyhow::Result<bool> {
        Ok(path.exists() && ImageRegistry::open(path, capacity)?.try_len()? >= count)
    };
    if full(&path).unwrap_or(false) {
        return Ok(path);
    }
    talk::progress(&format!("filling a registry with {count} entries"));
    if let Some(folder) = path.parent().filter(|folder| folder.exists()) {
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("removing {}", folder.display()))?;
    }
    let registry = ImageRegistry::open(&path, capacity).context("opening an empty registry")?;
    for index in 0..count {
        registry.try_put(
            &format!("key:{index}"),
            &SnapshotId::new(format!("snapshot:{index}")),
        )?;
    }
    Ok(path)
}

/// Numbers below `count` in an order that no cache foresees; the same in every run.
struct Scattered {
    count: u64,
    state: Cell<u64>,
}

impl Scattered {
    fn new(count: u64) -> Self {
        Self {
            count,
            state: Cell::new(1),
        }
    }

    fn next(&self) -> u64 {
        // The multiplier of Knuth's MMIX generator.
        let state = self
            .state
            .get()
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.state.set(state);
        (state >> 16) % self.count
    }
}
