//! A step that says a lot.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::chain::pipelines;
use super::memory::mib;
use crate::bench::Bench;
use crate::measure::{Racer, Who, peak_until_the_end, race};
use crate::pipelines::Pipelines;
use crate::report::Report;
use crate::row::{Figure, Row, Target};

/// Lines of a gigabyte; each has a number of 99 digits, one more than the line before.
const GIGABYTE: u64 = 10_000_000;
const DIGITS: usize = 99;

/// How fast a gigabyte comes through, and what memory it takes.
pub(crate) fn measure(bench: &Bench, report: &mut Report) {
    let outcomes = race(vec![Racer::of(
        Who::Ours,
        pipelines(bench),
        bench.rounds(5).max(2),
        |pipelines: &&Pipelines| Ok(run(pipelines, GIGABYTE)?.0),
    )]);
    let row = Row::new(
        "lines",
        "1 GB of output of a step, to a file (checked: every line is there, in order)",
        outcomes,
    );
    // A hundred megabytes a second.
    report.add(vec![
        row.with_target(Target::AtMost(Duration::from_secs(10))),
    ]);
    let growth = pipelines(bench)
        .and_then(|pipelines| growth(pipelines).map_err(|error| format!("{error:#}")));
    report.add_figures(vec![Figure {
        title: "peak memory of `hmvm run` with 1 GB of output, beyond that with 10 MB".to_owned(),
        value: growth,
        unit: "MiB",
        at_most: Some(8.0),
    }]);
}

fn growth(pipelines: &Pipelines) -> anyhow::Result<f64> {
    let (_, little) = run(pipelines, GIGABYTE / 100)?;
    let (_, much) = run(pipelines, GIGABYTE)?;
    Ok(mib(much - little))
}

/// Runs one step with so many lines of output; returns how long it took, and the peak of memory in KiB.
fn run(pipelines: &Pipelines, lines: u64) -> anyhow::Result<(Duration, i64)> {
    let first = format!("1{:0width$}", 0, width = DIGITS - 1);
    let last = format!("1{:0width$}", lines - 1, width = DIGITS - 1);
    let text = format!(
        "{}\n[steps.talk]\nrun = \"seq {first} {last}\"\n",
        pipelines.fresh()
    );
    let directory = pipelines.write("lines", &text)?;
    let path = directory.join("output");
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    let mut command = pipelines.command(&directory, &["run"]);
    command.stdout(file).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().context("starting hmvm")?;
    let peak = peak_until_the_end(&mut child)?;
    let duration = start.elapsed();
    check(&path, lines)?;
    std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    Ok((duration, peak))
}

/// Every line must be there, behind whatever `hmvm` puts before it.
fn check(path: &Path, lines: u64) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut line, mut next) = (Vec::new(), 0);
    while reader
        .read_until(b'\n', &mut line)
        .context("reading lines")?
        > 0
    {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let number = text.len().checked_sub(DIGITS).map(|start| &text[start..]);
        if let Some(number) = number.filter(|digits| digits.iter().all(u8::is_ascii_digit)) {
            let tail = std::str::from_utf8(&number[DIGITS - 18..]).context("digits")?;
            let tail: u64 = tail.parse().context("a number")?;
            ensure!(tail == next, "line {next} is missing: {tail} came");
            next += 1;
        }
        line.clear();
    }
    ensure!(next == lines, "{next} of {lines} lines arrived");
    Ok(())
}
