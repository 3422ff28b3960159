//! Snapshots of what a command wrote.

use std::time::Duration;

use super::steps::ours;
use crate::bench::Bench;
use crate::measure::{Racer, Who, race};
use crate::row::{Row, Target};

struct Load {
    id: &'static str,
    title: &'static str,
    /// Runs inside the machine; `perl` belongs to every Debian root.
    cmd: &'static str,
    at_most: Option<Duration>,
    /// Rounds of ours and of those that copy.
    rounds: (usize, usize),
}

const LOADS: [Load; 4] = [
    Load {
        id: "snapshot-0",
        title: "snapshot of nothing",
        cmd: "true",
        at_most: None,
        rounds: (20, 8),
    },
    Load {
        id: "snapshot-100",
        title: "snapshot of 100 MB in one file",
        cmd: "head -c 100000000 /dev/urandom >/data",
        at_most: None,
        rounds: (5, 3),
    },
    Load {
        id: "snapshot-500",
        title: "snapshot of 500 MB in one file",
        cmd: "head -c 500000000 /dev/urandom >/data",
        at_most: None,
        rounds: (5, 3),
    },
    Load {
        id: "snapshot-50000",
        title: "snapshot of 500 MB in 50,000 files",
        cmd: "perl -e 'for $d (1..100) { mkdir \"/data$d\"; for $f (1..500) { \
              open F, \">/data$d/$f\" or die; print F \"x\" x 10000; close F } }'",
        at_most: Some(Duration::from_millis(10)),
        rounds: (5, 3),
    },
];

/// One row for each load.
pub(crate) fn rows(bench: &Bench) -> Vec<Row> {
    LOADS.iter().map(|load| row(bench, load)).collect()
}

fn row(bench: &Bench, load: &Load) -> Row {
    let (often, seldom) = load.rounds;
    let outcomes = race(vec![
        Racer::of(Who::Ours, ours(bench), bench.rounds(often), |ours| {
            ours.snapshot(load.cmd)
        }),
        Racer::of(
            Who::Docker,
            bench.docker.as_ref().map_err(Clone::clone),
            bench.rounds(seldom),
            |docker| docker.snapshot(load.cmd),
        ),
        Racer::of(
            Who::DockerOnly,
            bench.docker_only(),
            bench.rounds(seldom),
            |peer| peer.order(&format!("snapshot {}", load.cmd)),
        ),
    ]);
    let row = Row::new(load.id, load.title, outcomes);
    match load.at_most {
        Some(limit) => row.with_target(Target::AtMost(limit)),
        None => row,
    }
}
