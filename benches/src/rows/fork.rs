//! Forks of long chains.

use super::steps::ours;
use crate::bench::Bench;
use crate::measure::{Racer, Who, race};
use crate::row::{Row, Target};

/// How deep; the Docker-only crate ends at the number of layers that Docker can stack.
const DEPTHS: [usize; 3] = [1, 100, 1000];
const DEEPEST_OF_DOCKER: usize = 100;

/// One row for each depth. All depths race each other, since they are compared with each other.
pub(crate) fn rows(bench: &Bench) -> Vec<Row> {
    let depth = if bench.quick { DEPTHS[1] } else { DEPTHS[2] };
    let ours = ours(bench).and_then(|ours| {
        ours.make_chain(depth)
            .map(|()| ours)
            .map_err(|error| format!("making the chain failed: {error:#}"))
    });
    let theirs = if bench.quick {
        Err("left out by --quick".into())
    } else {
        bench.docker_only()
    }
    .and_then(|peer| {
        peer.order(&format!("chain {DEEPEST_OF_DOCKER}"))
            .map(|_| peer)
            .map_err(|error| format!("making the chain failed: {error:#}"))
    });
    let mut racers = Vec::new();
    for depth in DEPTHS {
        racers.push(Racer::of(
            Who::Ours,
            ours.clone(),
            bench.rounds(40),
            move |ours| ours.fork(depth),
        ));
        racers.push(if depth <= DEEPEST_OF_DOCKER {
            Racer::of(
                Who::DockerOnly,
                theirs.clone(),
                bench.rounds(6),
                move |peer| peer.order(&format!("fork {depth}")),
            )
        } else {
            Racer::missing(Who::DockerOnly, "Docker stacks at most about 125 layers")
        });
    }
    let mut outcomes = race(racers).into_iter();
    let rows = DEPTHS
        .map(|depth| {
            let title = format!("fork at depth {depth}: restore, `true`, destroy");
            Row::new(
                format!("fork-{depth}"),
                title,
                outcomes.by_ref().take(2).collect(),
            )
        })
        .into_iter()
        .map(|row| {
            if row.id == "fork-1000" {
                row.with_target(compared_with_the_first())
            } else {
                row
            }
        })
        .collect();
    if let Ok(ours) = ours {
        // What stays behind is collected with the folder.
        let _ = ours.remove_chain();
    }
    rows
}

fn compared_with_the_first() -> Target {
    Target::TimesOf {
        factor: 1.5,
        row: "fork-1",
        who: Who::Ours,
    }
}
