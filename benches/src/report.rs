//! From rows to Markdown.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::bench::Bench;
use crate::machine;
use crate::measure::Outcome;
use crate::row::{Figure, Row, Target};

/// Everything that one run found out.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Vec<(&'static str, String)>,
    rows: Vec<Row>,
    figures: Vec<Figure>,
    quick: bool,
}

impl Report {
    pub(crate) fn new(bench: &Bench) -> Self {
        let mut machine = machine::describe(&bench.folder, &bench.repository);
        if let Ok(daemon) = &bench.daemon {
            machine.push(("docker's storage", daemon.driver.clone()));
        }
        machine.push(("load at the start", machine::load()));
        Self {
            machine,
            rows: Vec::new(),
            figures: Vec::new(),
            quick: bench.quick,
        }
    }

    pub(crate) fn add(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    pub(crate) fn add_figures(&mut self, figures: Vec<Figure>) {
        self.figures.extend(figures);
    }

    pub(crate) fn finish(&mut self, bench: &Bench, took: Duration) {
        self.machine.push(("load at the end", machine::load()));
        self.machine.push((
            "whole run",
            format!("{} s, quick: {}", took.as_secs(), bench.quick),
        ));
    }

    /// The tables alone.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        if !self.rows.is_empty() {
            text.push_str(
                "| what | who | median | minimum | × ours | rounds |\n|---|---|--:|--:|--:|--:|\n",
            );
        }
        for row in &self.rows {
            write_row(&mut text, row);
        }
        if !self.figures.is_empty() {
            text.push_str("\n| memory | | target |\n|---|--:|---|\n");
        }
        for figure in &self.figures {
            let value = match &figure.value {
                Ok(value) => format!("{value:.2} {}", figure.unit),
                Err(why) => format!("failed: {why}"),
            };
            let verdict = figure.at_most.map_or(String::new(), |limit| {
                let reached = figure.value.as_ref().is_ok_and(|value| *value <= limit);
                format!("at most {limit} {}: {}", figure.unit, verdict(reached))
            });
            let _ = writeln!(text, "| {} | {value} | {verdict} |", figure.title);
        }
        text.push('\n');
        self.write_targets(&mut text);
        self.write_losses(&mut text);
        text
    }

    /// Rows in which a peer was faster, so that nobody has to look for them.
    fn write_losses(&self, text: &mut String) {
        let mut losses = String::new();
        for row in &self.rows {
            let Some(ours) = row.ours() else {
                continue;
            };
            for (who, outcome) in &row.outcomes {
                if let Outcome::Measured(samples) = outcome
                    && samples.median() < ours
                {
                    let (theirs, ours) = (show(samples.median()), show(ours));
                    let _ = writeln!(losses, "- {}: {ours}, {who} {theirs}", row.title);
                }
            }
        }
        if !losses.is_empty() {
            let _ = write!(text, "\nWhere a peer is faster:\n\n{losses}");
        }
    }

    fn write_targets(&self, text: &mut String) {
        let with_target = || {
            self.rows
                .iter()
                .filter_map(|row| row.target.as_ref().map(|target| (row, target)))
        };
        if with_target().next().is_none() {
            return;
        }
        text.push_str("| target | median | limit | |\n|---|--:|--:|---|\n");
        for (row, target) in with_target() {
            let (ours, limit) = (row.ours(), self.limit(target));
            let verdict = match (ours, limit) {
                (Some(ours), Some(limit)) => verdict(ours <= limit),
                _ => "not measured",
            };
            let shown = |duration: Option<Duration>| duration.map_or("–".into(), show);
            let _ = writeln!(
                text,
                "| {} | {} | {}{} | {verdict} |",
                row.title,
                shown(ours),
                explain(target),
                shown(limit)
            );
        }
    }

    fn limit(&self, target: &Target) -> Option<Duration> {
        match *target {
            Target::AtMost(limit) => Some(limit),
            Target::TimesOf { factor, row, who } => {
                let row = self.rows.iter().find(|other| other.id == row)?;
                row.median(who).map(|median| median.mul_f64(factor))
            }
            Target::Above { by, row } => {
                let row = self.rows.iter().find(|other| other.id == row)?;
                row.ours().map(|median| median + by)
            }
        }
    }

    /// Writes the whole page.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = String::from(HEAD);
        if self.quick {
            text.push_str("**A quick run: a look, not a measurement.**\n\n");
        }
        text.push_str("| | |\n|---|---|\n");
        for (name, value) in &self.machine {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        text.push('\n');
        text.push_str(&self.table());
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

const HEAD: &str = "# Benchmarks

Written by `cargo run --release -p hm-vm-bench` (as root, since dockerd and runc need it). All racers of a row take
turns within one run, on the same Debian root (debootstrap, minbase), without network; each warms up once. Given are
medians, the fastest round, how many times our median a racer takes, and the number of rounds.

- **hm-vm (sandbox)**: the library, through its public API, in the benchmark's process.
- **hm-vm (docker)**: the library on its backend of containers, in a process of its own, on the daemon that the Docker-only crate uses.
- **bwrap**: `bwrap --ro-bind ROOT / --unshare-all --die-with-parent --proc /proc --dev /dev --tmpfs /tmp -- true`. It keeps
  nothing and limits nothing: what it does is less, and that is what it costs.
- **runc**: `runc run` of the default specification with a read-only root.
- **docker**: `docker run --rm`, `docker commit` and `docker cp` with a daemon started for this run, without a bridge.
- **Docker-only crate**: `hm-vm` 0.0.9 from crates.io on the same daemon.
- **docker build**: the same daemon's BuildKit; **buildah**: `buildah build --layers`. Both from a `Dockerfile` of `RUN` lines;
  fresh is `--no-cache`. Beside them hm-vm is the program `hmvm run`, from its start to its end, with a store of its own.
- **skopeo + umoci**: `skopeo copy` to a layout and `umoci unpack`, what one takes without a daemon. The registry is Debian's
  `docker-registry` on this machine; beside them hm-vm is the program `hmvm` with a new store each round. Nobody waits for the disk.

A snapshot of ours is visible at once and synced to disk in the background (see [caching.md](caching.md)); the time is until it
is visible. `docker commit` does not wait for the disk either. A registry `get` of ours also counts the hit and keeps a strict
order of use.

";

fn write_row(text: &mut String, row: &Row) {
    let ours = row.ours();
    for (index, (who, outcome)) in row.outcomes.iter().enumerate() {
        let title = if index == 0 { row.title.as_str() } else { "" };
        let _ = match outcome {
            Outcome::Measured(samples) => {
                let ratio = ours
                    .filter(|ours| !ours.is_zero() && *who != row.us())
                    .map_or(String::new(), |ours| {
                        format!("{:.1}", samples.median().as_secs_f64() / ours.as_secs_f64())
                    });
                writeln!(
                    text,
                    "| {title} | {who} | {} | {} | {ratio} | {} |",
                    show(samples.median()),
                    show(samples.minimum()),
                    samples.count()
                )
            }
            Outcome::Missing(why) => {
                writeln!(text, "| {title} | {who} | {} | | | |", one_line(why))
            }
            Outcome::Failed(why) => writeln!(
                text,
                "| {title} | {who} | failed: {} | | | |",
                one_line(why)
            ),
        };
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "**missed**" }
}

fn explain(target: &Target) -> String {
    match target {
        Target::AtMost(_) => String::new(),
        Target::TimesOf { factor, row, who } => format!("{factor:.3} × {who}, {row}: "),
        Target::Above { by, row } => format!("{} above {row}: ", show(*by)),
    }
}

/// Three significant digits in the unit that suits.
fn show(duration: Duration) -> String {
    let nanos = duration.as_secs_f64() * 1e9;
    let (value, unit) = if nanos < 1e6 {
        (nanos / 1e3, "µs")
    } else if nanos < 1e9 {
        (nanos / 1e6, "ms")
    } else {
        (nanos / 1e9, "s")
    };
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_the_unit_that_suits() {
        assert_eq!(show(Duration::from_nanos(1_234)), "1.23 µs");
        assert_eq!(show(Duration::from_micros(999)), "999 µs");
        assert_eq!(show(Duration::from_micros(12_345)), "12.3 ms");
        assert_eq!(show(Duration::from_millis(2_500)), "2.50 s");
    }
}
