//! Steps that do not depend on each other.

use std::fmt::Write as _;
use std::time::Duration;

use super::chain::pipelines;
use crate::bench::Bench;
use crate::measure::{Racer, Who, race};
use crate::pipelines::Pipelines;
use crate::row::{Row, Target};

const COUNT: usize = 200;

/// Steps that are kept, and steps that are thrown away.
pub(crate) fn rows(bench: &Bench) -> Vec<Row> {
    let outcomes = race(vec![
        racer(bench, "independent", ""),
        racer(bench, "uncached", "cache = \"off\"\n"),
    ]);
    let titles = [
        (
            "parallel-kept",
            "200 independent empty steps, each kept, whole process",
        ),
        (
            "parallel-uncached",
            "200 independent empty steps that are not cached, whole process",
        ),
    ];
    titles
        .into_iter()
        .zip(outcomes)
        .map(|((id, title), outcome)| {
            // A hundred steps a second.
            Row::new(id, title, vec![outcome]).with_target(Target::AtMost(Duration::from_secs(2)))
        })
        .collect()
}

fn racer<'a>(bench: &'a Bench, name: &'a str, more: &'a str) -> Racer<'a> {
    Racer::of(
        Who::Ours,
        pipelines(bench),
        bench.rounds(10),
        move |pipelines: &&Pipelines| {
            let mut text = pipelines.fresh();
            for step in 1..=COUNT {
                // Of steps that are the same, one would run, and the others would find its result.
                let _ = write!(
                    text,
                    "\n[steps.s{step}]\nrun = \"true\"\nenv = {{ STEP = {step} }}\n{more}"
                );
            }
            let directory = pipelines.write(name, &text)?;
            pipelines.run(&directory)
        },
    )
}
