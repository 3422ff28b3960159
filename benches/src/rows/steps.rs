//! Whole steps.

use std::cell::Cell;
use std::time::Duration;

use crate::bench::Bench;
use crate::measure::{Racer, Who, race};
use crate::ours::Ours;
use crate::row::{Row, Target};

/// A step whose files are thrown away.
pub(crate) fn empty(bench: &Bench) -> Row {
    let outcomes = race(vec![
        Racer::of(Who::Ours, ours(bench), bench.rounds(60), |ours| {
            ours.empty()
        }),
        Racer::of(Who::Bwrap, bench.bwrap.clone(), bench.rounds(60), |bwrap| {
            bwrap.empty()
        }),
        Racer::of(
            Who::Runc,
            bench.runc.as_ref().map_err(Clone::clone),
            bench.rounds(30),
            |runc| runc.empty(),
        ),
        Racer::of(
            Who::Docker,
            bench.docker.as_ref().map_err(Clone::clone),
            bench.rounds(12),
            |docker| docker.empty(),
        ),
        Racer::of(
            Who::DockerOnly,
            bench.docker_only(),
            bench.rounds(12),
            |peer| peer.order("empty"),
        ),
    ]);
    Row::new(
        "empty",
        "empty step, no snapshot: create, `true`, destroy",
        outcomes,
    )
    .with_target(Target::TimesOf {
        factor: 1.0,
        row: "empty",
        who: Who::Bwrap,
    })
}

/// A step that is kept and published.
pub(crate) fn step(bench: &Bench) -> Row {
    let next = Cell::new(0);
    let outcomes = race(vec![
        Racer::of(Who::Ours, ours(bench), bench.rounds(60), |ours| ours.step()),
        Racer::missing(Who::Bwrap, "keeps no snapshots"),
        Racer::missing(Who::Runc, "keeps no snapshots"),
        Racer::of(
            Who::Docker,
            bench.docker.as_ref().map_err(Clone::clone),
            bench.rounds(10),
            |docker| docker.step(),
        ),
        Racer::of(
            Who::DockerOnly,
            bench.docker_only(),
            bench.rounds(12),
            |peer| peer.order(&format!("step bench:step-{}", next.replace(next.get() + 1))),
        ),
    ]);
    // bwrap's step of the other row: what the same isolation costs without keeping anything.
    Row::new("step", "empty step with snapshot and publish", outcomes).with_target(
        Target::TimesOf {
            factor: 2.0,
            row: "empty",
            who: Who::Bwrap,
        },
    )
}

/// A step that is skipped.
pub(crate) fn hit(bench: &Bench) -> Row {
    let key = ours(bench).and_then(|ours| {
        ours.prepare_hit()
            .map(|key| (ours, key))
            .map_err(|error| format!("preparing failed: {error:#}"))
    });
    let theirs = bench.docker_only().and_then(|peer| {
        peer.order("step bench:hit")
            .map(|_| peer)
            .map_err(|error| format!("preparing failed: {error:#}"))
    });
    let outcomes = race(vec![
        Racer::of(Who::Ours, key.clone(), bench.rounds(2000), |(ours, key)| {
            ours.hit(key)
        }),
        Racer::missing(Who::Docker, "skips nothing"),
        Racer::of(Who::DockerOnly, theirs, bench.rounds(200), |peer| {
            peer.order("hit bench:hit")
        }),
    ]);
    if let Ok((ours, key)) = key {
        // What stays behind is collected with the folder.
        let _ = ours.forget(&key);
    }
    Row::new(
        "hit",
        "cache hit through `HmVm::execute`, in process",
        outcomes,
    )
    .with_target(Target::AtMost(Duration::from_micros(30)))
}

/// Many machines at once.
pub(crate) fn many(bench: &Bench) -> Row {
    const COUNT: usize = 64;
    let outcomes = race(vec![
        Racer::of(Who::Ours, ours(bench), bench.rounds(5), |ours| {
            ours.many(COUNT)
        }),
        Racer::of(Who::Bwrap, bench.bwrap.clone(), bench.rounds(5), |bwrap| {
            bwrap.many(COUNT)
        }),
        Racer::of(
            Who::Runc,
            bench.runc.as_ref().map_err(Clone::clone),
            bench.rounds(3),
            |runc| runc.many(COUNT),
        ),
        Racer::of(
            Who::Docker,
            bench.docker.as_ref().map_err(Clone::clone),
            bench.rounds(2),
            |docker| docker.many(COUNT),
        ),
        Racer::of(
            Who::DockerOnly,
            bench.docker_only(),
            bench.rounds(2),
            |peer| peer.order(&format!("many {COUNT}")),
        ),
    ]);
    Row::new(
        "many",
        "64 VMs at once: create, `true`, destroy; until the last is gone",
        outcomes,
    )
}

/// Our side, if it could be opened.
pub(super) fn ours(bench: &Bench) -> Result<&Ours, String> {
    bench.ours.as_ref().map_err(Clone::clone)
}
