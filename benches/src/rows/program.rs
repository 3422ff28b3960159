//! The program from start to end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

use super::steps::ours;
use crate::bench::Bench;
use crate::measure::{Racer, Who, race};
use crate::ours::{IMAGE, Ours};
use crate::row::{Row, Target};

/// `hmvm exec` of a step that is in the cache, beside `docker run`, which runs it again.
pub(crate) fn row(bench: &Bench) -> Row {
    let prepared = ours(bench).and_then(|ours| {
        exec(bench, ours)
            .map(|_| ours)
            .map_err(|error| format!("preparing failed: {error:#}"))
    });
    let outcomes = race(vec![
        Racer::of(Who::Ours, prepared, bench.rounds(60), |ours| {
            exec(bench, ours)
        }),
        Racer::of(
            Who::Docker,
            bench.docker.as_ref().map_err(Clone::clone),
            bench.rounds(10),
            |docker| docker.empty(),
        ),
    ]);
    Row::new(
        "program",
        "`hmvm exec` on a hit, whole process (docker: runs it again)",
        outcomes,
    )
    .with_target(Target::AtMost(Duration::from_millis(15)))
}

fn exec(bench: &Bench, ours: &Ours) -> anyhow::Result<Duration> {
    let program = bench.hmvm.as_ref().map_err(|why| anyhow!("{why}"))?;
    let mut command = Command::new(program);
    command
        .arg("exec")
        .arg("--store")
        .arg(ours.store.root())
        .args(["--image", IMAGE, "--", "true"]);
    command.stdin(Stdio::null());
    let start = Instant::now();
    let output = command
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    let duration = start.elapsed();
    ensure!(
        output.status.success(),
        "hmvm exec failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(duration)
}
