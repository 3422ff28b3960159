//! From a part of the command line to its rows.

use super::{
    chain, containers, fork, images, inject, lines, memory, parallel, program, registry, snapshot,
    steps, workspace,
};
use crate::arguments::Part;
use crate::bench::Bench;
use crate::report::Report;

/// Measures one part and adds what came out to the report.
pub(crate) fn run(part: Part, bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    match part {
        Part::Empty => report.add(vec![steps::empty(bench)]),
        Part::Step => report.add(vec![steps::step(bench)]),
        Part::Hit => report.add(vec![steps::hit(bench)]),
        Part::Snapshot => report.add(snapshot::rows(bench)),
        Part::Fork => report.add(fork::rows(bench)),
        Part::Inject => report.add(inject::rows(bench)?),
        Part::Many => report.add(vec![steps::many(bench)]),
        Part::Program => report.add(vec![program::row(bench)]),
        Part::Chain => report.add(chain::rows(bench)),
        Part::Parallel => report.add(parallel::rows(bench)),
        Part::Workspace => report.add(workspace::rows(bench)?),
        Part::Images => images::measure(bench, report),
        Part::Containers => containers::measure(bench, report)?,
        Part::Lines => lines::measure(bench, report),
        Part::Registry => report.add(registry::rows(bench)?),
        Part::Memory => report.add_figures(memory::figures(bench)),
    }
    Ok(())
}
