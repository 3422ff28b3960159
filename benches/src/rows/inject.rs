//! Bringing a source tree in.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::steps::ours;
use super::tree;
use crate::bench::Bench;
use crate::measure::{Racer, Who, race};
use crate::row::{Row, Target};

/// A tree that was never seen, and one that did not change.
pub(crate) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let scratch = tempfile::Builder::new()
        .prefix("inject.")
        .tempdir_in(&bench.folder)
        .context("making a folder for the source trees")?;
    let still = scratch.path().join("still");
    tree::write(&still, 0)?;
    let cold = cold(bench, scratch.path());
    Ok(vec![cold, unchanged(bench, &still)])
}

fn cold(bench: &Bench, scratch: &Path) -> Row {
    // Every round of every racer gets contents of its own, which no earlier run left in the store either.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seed = Cell::new(now.as_nanos());
    let fresh = |who: &str| -> anyhow::Result<_> {
        let folder = scratch.join(who);
        tree::write(&folder, seed.replace(seed.get() + 1))?;
        Ok(folder)
    };
    let outcomes = race(vec![
        Racer::of(Who::Ours, ours(bench), bench.rounds(8), |ours| {
            ours.inject(&fresh("ours")?)
        }),
        Racer::of(
            Who::Docker,
            bench.docker.as_ref().map_err(Clone::clone),
            bench.rounds(4),
            |docker| docker.inject(&fresh("docker")?),
        ),
        Racer::of(
            Who::DockerOnly,
            bench.docker_only(),
            bench.rounds(4),
            |peer| peer.order(&format!("inject {}", fresh("docker-only")?.display())),
        ),
    ]);
    Row::new("inject-cold", "inject of 10,000 files, all new", outcomes)
}

fn unchanged(bench: &Bench, still: &Path) -> Row {
    let known = ours(bench).and_then(|ours| {
        ours.inject(still)
            .map(|_| ours)
            .map_err(|error| format!("preparing failed: {error:#}"))
    });
    let outcomes = race(vec![
        Racer::of(Who::Ours, known, bench.rounds(20), |ours| {
            ours.inject_again(still)
        }),
        Racer::of(
            Who::Docker,
            bench.docker.as_ref().map_err(Clone::clone),
            bench.rounds(4),
            |docker| docker.inject(still),
        ),
        Racer::of(
            Who::DockerOnly,
            bench.docker_only(),
            bench.rounds(4),
            |peer| peer.order(&format!("inject {}", still.display())),
        ),
    ]);
    Row::new(
        "inject-unchanged",
        "inject of 10,000 files, unchanged (checked: no layer is written)",
        outcomes,
    )
    .with_target(Target::AtMost(Duration::from_millis(50)))
}
