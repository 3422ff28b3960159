//! What an unchanged workspace costs a run.

use std::time::Duration;

use super::chain::filled;
use super::tree;
use crate::bench::Bench;
use crate::measure::{Racer, Who, race};
use crate::row::{Row, Target};

/// A run of one cached step, without a workspace and with one.
pub(crate) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let bare = filled(bench, "bare", "[steps.step]\nrun = \"true\"\n", 1);
    if let Ok(pipelines) = &bench.pipelines {
        tree::write(&pipelines.directory("workspace"), 0)?;
    }
    let text = "[steps.step]\nrun = \"true\"\ninject = \".\"\n";
    let full = filled(bench, "workspace", text, 1);
    // A context of its own: its files have a `Dockerfile` beside them.
    let context = bench.folder.join("buildkit/workspace");
    if bench.buildkit.is_ok() {
        tree::write(&context, 0)?;
    }
    let mut outcomes = race(vec![
        Racer::of(
            Who::Ours,
            bare,
            bench.rounds(40),
            |(pipelines, directory)| pipelines.run(directory),
        ),
        Racer::of(
            Who::Ours,
            full,
            bench.rounds(40),
            |(pipelines, directory)| pipelines.run(directory),
        ),
        Racer::of(
            Who::BuildKit,
            bench.buildkit.as_ref().map_err(Clone::clone),
            bench.rounds(6),
            |peer| peer.unchanged(&context),
        ),
    ]);
    let with = outcomes.split_off(1);
    Ok(vec![
        Row::new(
            "workspace-none",
            "run of one cached step, whole process",
            outcomes,
        ),
        Row::new(
            "workspace",
            "the same with an unchanged workspace of 10,000 files",
            with,
        )
        .with_target(Target::Above {
            by: Duration::from_millis(60),
            row: "workspace-none",
        }),
    ])
}
