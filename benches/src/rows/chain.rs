//! Chains of steps through `hmvm run`, beside the builders of images.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::bench::Bench;
use crate::measure::{Racer, Who, race};
use crate::peers::CHAIN_STEPS;
use crate::pipelines::Pipelines;
use crate::row::{Row, Target};

/// Ten steps, cached and fresh, and a thousand cached ones.
pub(crate) fn rows(bench: &Bench) -> Vec<Row> {
    vec![cached(bench), fresh(bench), thousand(bench)]
}

/// The pipelines, if there is a program that runs them.
pub(super) fn pipelines(bench: &Bench) -> Result<&Pipelines, String> {
    bench.pipelines.as_ref().map_err(Clone::clone)
}

/// A pipeline that is in the cache as a whole.
pub(super) fn filled<'a>(
    bench: &'a Bench,
    name: &str,
    steps: &str,
    count: usize,
) -> Result<(&'a Pipelines, PathBuf), String> {
    let pipelines = pipelines(bench)?;
    pipelines
        .write(name, steps)
        .and_then(|directory| {
            pipelines.fill(&directory, count)?;
            Ok((pipelines, directory))
        })
        .map_err(|error| format!("preparing failed: {error:#}"))
}

/// Steps that each fork from the one before.
fn chain(count: usize) -> String {
    let mut text = String::new();
    for step in 1..=count {
        let _ = writeln!(text, "[steps.s{step}]\nrun = \"echo {step}\"");
        if step > 1 {
            let _ = writeln!(text, "from = \"s{}\"", step - 1);
        }
        text.push('\n');
    }
    text
}

fn cached(bench: &Bench) -> Row {
    let ours = filled(bench, "cached", &chain(CHAIN_STEPS), CHAIN_STEPS);
    let outcomes = race(vec![
        Racer::of(
            Who::Ours,
            ours,
            bench.rounds(60),
            |(pipelines, directory)| pipelines.run(directory),
        ),
        Racer::of(
            Who::BuildKit,
            bench.buildkit.as_ref().map_err(Clone::clone),
            bench.rounds(20),
            |peer| peer.cached(),
        ),
        Racer::of(
            Who::Buildah,
            bench.buildah.as_ref().map_err(Clone::clone),
            bench.rounds(20),
            |peer| peer.cached(),
        ),
    ]);
    Row::new(
        "chain-cached",
        "chain of ten `echo` steps, all cached, whole process",
        outcomes,
    )
    .with_target(Target::AtMost(Duration::from_millis(20)))
}

fn fresh(bench: &Bench) -> Row {
    let steps = chain(CHAIN_STEPS);
    let outcomes = race(vec![
        Racer::of(
            Who::Ours,
            pipelines(bench),
            bench.rounds(30),
            |pipelines: &&Pipelines| {
                let text = format!("{}\n{steps}", pipelines.fresh());
                let directory = pipelines.write("fresh", &text)?;
                pipelines.run(&directory)
            },
        ),
        Racer::of(
            Who::BuildKit,
            bench.buildkit.as_ref().map_err(Clone::clone),
            bench.rounds(8),
            |peer| peer.fresh(),
        ),
        Racer::of(
            Who::Buildah,
            bench.buildah.as_ref().map_err(Clone::clone),
            bench.rounds(5),
            |peer| peer.fresh(),
        ),
    ]);
    Row::new(
        "chain-fresh",
        "chain of ten `echo` steps, none cached, each kept, whole process",
        outcomes,
    )
    .with_target(Target::AtMost(Duration::from_millis(150)))
}

fn thousand(bench: &Bench) -> Row {
    const COUNT: usize = 1000;
    let ours = filled(bench, "thousand", &chain(COUNT), COUNT);
    let outcomes = race(vec![
        Racer::of(
            Who::Ours,
            ours,
            bench.rounds(20),
            |(pipelines, directory)| pipelines.run(directory),
        ),
        Racer::missing(Who::BuildKit, "docker stacks at most about 125 layers"),
    ]);
    Row::new(
        "chain-1000",
        "chain of 1,000 `echo` steps, all cached, whole process",
        outcomes,
    )
    .with_target(Target::AtMost(Duration::from_millis(250)))
}
