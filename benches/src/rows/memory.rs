//! Memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hm_vm::{OutputSink, Vm, VmBackend, VmConfig};

use super::steps::ours;
use crate::bench::Bench;
use crate::measure::kib;
use crate::ours::{IMAGE, Ours};
use crate::row::Figure;

/// What a VM and its output cost.
pub(crate) fn figures(bench: &Bench) -> Vec<Figure> {
    let figure = |title: &str, at_most, measure: fn(&Ours) -> anyhow::Result<f64>| Figure {
        title: title.to_owned(),
        value: ours(bench).and_then(|ours| measure(ours).map_err(|error| format!("{error:#}"))),
        unit: "MiB",
        at_most,
    };
    vec![
        figure(
            "host memory of a VM at rest (of 64, growth of this process)",
            None,
            at_rest,
        ),
        figure(
            "host memory of a VM that runs `sleep`, beyond its processes (of 64; kernel and this process)",
            Some(2.0),
            running,
        ),
        figure(
            "growth of peak memory while 100 MB of output flow through",
            Some(4.0),
            output,
        ),
    ]
}

const COUNT: usize = 64;
const KIB_IN_A_MIB: f64 = 1024.0;

#[expect(
    clippy::cast_precision_loss,
    reason = "memory of machines of today is far below 2^52 KiB"
)]
pub(super) fn mib(kib: i64) -> f64 {
    kib as f64 / KIB_IN_A_MIB
}

#[expect(clippy::cast_precision_loss, reason = "64")]
fn each(total: f64) -> f64 {
    total / COUNT as f64
}

fn at_rest(ours: &Ours) -> anyhow::Result<f64> {
    let before = status("VmRSS:")?;
    let vms: Vec<Box<dyn Vm>> = (0..COUNT)
        .map(|_| ours.create())
        .collect::<anyhow::Result<_>>()?;
    let after = status("VmRSS:")?;
    for vm in vms {
        ours.destroy(vm)?;
    }
    Ok(each(mib(after - before)))
}

fn running(ours: &Ours) -> anyhow::Result<f64> {
    let mut rounds = Vec::new();
    for _ in 0..5 {
        rounds.push(running_once(ours)?);
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[rounds.len() / 2])
}

fn running_once(ours: &Ours) -> anyhow::Result<f64> {
    let before = held()?;
    let started = Arc::new(AtomicUsize::new(0));
    let stop = tokio::sync::watch::Sender::new(false);
    let used = ours.runtime.block_on(async {
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..COUNT {
            running.spawn(sleep(
                Arc::clone(&ours.backend),
                Arc::clone(&started),
                stop.subscribe(),
            ));
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while started.load(Ordering::Relaxed) < COUNT {
            ensure!(
                Instant::now() < deadline,
                "only {} VMs started",
                started.load(Ordering::Relaxed)
            );
            ensure!(running.try_join_next().is_none(), "a VM ended early");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let used = held()? - before;
        stop.send_replace(true);
        while let Some(result) = running.join_next().await {
            result.context("joining")??;
        }
        anyhow::Ok(used)
    })?;
    Ok(each(mib(used)))
}

/// Runs `sleep` in a VM until told to stop.
async fn sleep(
    backend: Arc<dyn VmBackend>,
    started: Arc<AtomicUsize>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut vm = backend.create(IMAGE, &VmConfig::default()).await?;
    let sink = Started(started);
    tokio::select! {
        result = vm.exec("echo up; exec sleep 1000", &[], "/", &sink) => { result?; }
        _ = stop.changed() => {}
    }
    vm.destroy().await
}

#[derive(Debug)]
struct Started(Arc<AtomicUsize>);

impl OutputSink for Started {
    fn on_stdout(&self, _line: &str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn on_stderr(&self, _line: &str) {}
}

fn output(ours: &Ours) -> anyhow::Result<f64> {
    const CMD: &str = "yes 0123456789012345678901234567890123456789012345678 | head -c 100000000";
    let vm = ours.create()?;
    ours.exec(vm.as_ref(), "echo warm", &Counted::default())?;
    // Makes the peak start over from what is resident now.
    std::fs::write("/proc/self/clear_refs", "5")
        .context("resetting the peak of resident memory")?;
    let before = status("VmHWM:")?;
    let sink = Counted::default();
    ours.exec(vm.as_ref(), CMD, &sink)?;
    let after = status("VmHWM:")?;
    ours.destroy(vm)?;
    let bytes = sink.0.load(Ordering::Relaxed);
    ensure!(bytes == 100_000_000, "{bytes} bytes arrived");
    Ok(mib(after - before))
}

#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl OutputSink for Counted {
    fn on_stdout(&self, line: &str) {
        self.0.fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
    }

    fn on_stderr(&self, _line: &str) {}
}

fn status(name: &str) -> anyhow::Result<i64> {
    kib("/proc/self/status", name)
}

/// What the kernel holds for processes, mounts and namespaces, and files in memory; without the page cache, which
/// is free for the asking. With the memory of this process.
fn held() -> anyhow::Result<i64> {
    let mut sum = status("VmRSS:")?;
    for name in ["Slab:", "KernelStack:", "PageTables:", "Percpu:", "Shmem:"] {
        sum += kib("/proc/meminfo", name)?;
    }
    Ok(sum)
}
