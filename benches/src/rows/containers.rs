//! The backend of containers beside the Docker-only crate, on one daemon.

use std::cell::Cell;
use std::fs::File;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::memory::mib;
use super::tree;
use crate::bench::Bench;
use crate::containers;
use crate::measure::{Racer, Who, race};
use crate::peers::{DockerOnly, Driver};
use crate::report::Report;
use crate::row::{Figure, Row, Target};

/// Megabytes of output of one command.
const OUTPUT: u64 = 100;

/// Both sides, or why one is not there.
struct Sides<'a> {
    bench: &'a Bench,
    ours: Result<&'a Driver, String>,
    theirs: Result<&'a DockerOnly, String>,
    next: Cell<u128>,
}

/// Steps, hits, injects, output; and the memory that they take.
pub(crate) fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let driver = bench
        .daemon
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|daemon| {
            containers::start(&bench.folder.join("containers"), daemon)
                .map_err(|error| format!("{error:#}"))
        });
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let sides = Sides {
        bench,
        ours: driver.as_ref().map_err(Clone::clone),
        theirs: bench.docker_only(),
        next: Cell::new(now.as_nanos()),
    };
    let scratch = tempfile::Builder::new()
        .prefix("containers.")
        .tempdir_in(&bench.folder)
        .context("making a folder for the source trees")?;
    let large = scratch.path().join("large");
    write_large(&large)?;
    report.add(vec![
        sides.empty(),
        sides.step(),
        sides.hit(),
        sides.inject(scratch.path()),
        sides.inject_large(&large),
        sides.output(),
    ]);
    report.add_figures(sides.memory(&large));
    Ok(())
}

impl<'a> Sides<'a> {
    fn fresh(&self) -> u128 {
        self.next.replace(self.next.get() + 1)
    }

    fn pair(
        &self,
        rounds: (usize, usize),
        ours: impl FnMut(&&'a Driver) -> anyhow::Result<std::time::Duration> + 'a,
        theirs: impl FnMut(&&'a DockerOnly) -> anyhow::Result<std::time::Duration> + 'a,
    ) -> Vec<Racer<'a>> {
        vec![
            Racer::of(
                Who::OursDocker,
                self.ours.clone(),
                self.bench.rounds(rounds.0),
                ours,
            ),
            Racer::of(
                Who::DockerOnly,
                self.theirs.clone(),
                self.bench.rounds(rounds.1),
                theirs,
            ),
        ]
    }

    fn empty(&self) -> Row {
        // Removals in the background belong to the round that left them: the next racer must not pay for them.
        let ours = |ours: &&Driver| {
            let duration = ours.order("empty")?;
            ours.order("settle")?;
            Ok(duration)
        };
        let racers = self.pair((20, 20), ours, |theirs| theirs.order("empty"));
        let title = "docker: empty step, no snapshot: create, `true`, destroy";
        Row::new("docker-empty", title, race(racers))
    }

    fn step(&self) -> Row {
        let start = self.fresh();
        let (mine, other) = (Cell::new(start), Cell::new(start));
        let ours = move |ours: &&Driver| {
            let key = format!("bench:mine-{}", mine.replace(mine.get() + 1));
            let duration = ours.order(&format!("step {key}"))?;
            ours.order(&format!("forget {key}"))?;
            ours.order("settle")?;
            Ok(duration)
        };
        let theirs = move |theirs: &&DockerOnly| {
            let key = format!("bench:other-{}", other.replace(other.get() + 1));
            let duration = theirs.order(&format!("step {key}"))?;
            theirs.order(&format!("forget {key}"))?;
            Ok(duration)
        };
        let racers = self.pair((20, 20), ours, theirs);
        let title = "docker: empty step with snapshot and publish";
        Row::new("docker-step", title, race(racers)).with_target(Target::TimesOf {
            factor: 1.0 / 1.5,
            row: "docker-step",
            who: Who::DockerOnly,
        })
    }

    fn hit(&self) -> Row {
        let key = format!("bench:hit-{}", self.fresh());
        let step = format!("step {key}");
        let prepared = Self {
            bench: self.bench,
            ours: self.ours.clone().and_then(|ours| {
                let made = ours.order(&step).map(|_| ours);
                made.map_err(|error| format!("preparing failed: {error:#}"))
            }),
            theirs: self.theirs.clone().and_then(|theirs| {
                let made = theirs.order(&step).map(|_| theirs);
                made.map_err(|error| format!("preparing failed: {error:#}"))
            }),
            next: Cell::new(0),
        };
        let (mine, other) = (format!("hit {key}"), format!("hit {key}"));
        let racers = prepared.pair(
            (500, 200),
            move |ours| ours.order(&mine),
            move |theirs| theirs.order(&other),
        );
        let row = Row::new(
            "docker-hit",
            "docker: cache hit through `HmVm::execute`, in process",
            race(racers),
        );
        if let Ok(ours) = self.ours {
            let _ = ours.order(&format!("forget {key}"));
        }
        row.with_target(Target::TimesOf {
            factor: 1.0 / 5.0,
            row: "docker-hit",
            who: Who::DockerOnly,
        })
    }

    fn inject(&self, scratch: &Path) -> Row {
        let (one, two) = (scratch.join("ours"), scratch.join("theirs"));
        let start = self.fresh();
        let (mine, other) = (Cell::new(start), Cell::new(start + (1 << 20)));
        let ours = move |ours: &&Driver| {
            tree::write(&one, mine.replace(mine.get() + 1))?;
            ours.order(&format!("inject {}", one.display()))
        };
        let theirs = move |theirs: &&DockerOnly| {
            tree::write(&two, other.replace(other.get() + 1))?;
            theirs.order(&format!("inject {}", two.display()))
        };
        let title = "docker: inject of 10,000 files, all new";
        Row::new(
            "docker-inject",
            title,
            race(self.pair((6, 6), ours, theirs)),
        )
    }

    fn inject_large(&self, large: &Path) -> Row {
        let order = format!("inject {}", large.display());
        let other = order.clone();
        let racers = self.pair(
            (3, 3),
            move |ours| ours.order(&order),
            move |theirs| theirs.order(&other),
        );
        let title = "docker: inject of 1 GB in eight files";
        Row::new("docker-inject-large", title, race(racers))
    }

    fn output(&self) -> Row {
        let order = format!("output {OUTPUT}");
        let other = order.clone();
        let racers = self.pair(
            (4, 4),
            move |ours| ours.order(&order),
            move |theirs| theirs.order(&other),
        );
        let title = "docker: 100 MB of output in lines of 50 bytes (checked: all bytes come)";
        Row::new("docker-output", title, race(racers))
    }

    fn memory(&self, large: &Path) -> Vec<Figure> {
        let inject = format!("inject {}", large.display());
        let output = format!("output {OUTPUT}");
        let text = |error: anyhow::Error| format!("{error:#}");
        let figure = |title: &str, value: Result<i64, String>, at_most| Figure {
            title: title.to_owned(),
            value: value.map(mib),
            unit: "MiB",
            at_most,
        };
        let mine = |order: &str| {
            let ours = self.ours.clone();
            ours.and_then(|ours| ours.growth(order).map_err(text))
        };
        let other = |order: &str| {
            let theirs = self.theirs.clone();
            theirs.and_then(|theirs| theirs.growth(order).map_err(text))
        };
        vec![
            figure(
                "docker: growth of peak memory during an inject of 1 GB",
                mine(&inject),
                Some(16.0),
            ),
            figure("the same, Docker-only crate", other(&inject), None),
            figure(
                "docker: growth of peak memory while 100 MB of output flow through",
                mine(&output),
                Some(8.0),
            ),
            figure("the same, Docker-only crate", other(&output), None),
        ]
    }
}

/// Eight files of 125 MB that do not compress.
fn write_large(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    for number in 0..8 {
        let path = folder.join(format!("large{number}"));
        let random = File::open("/dev/urandom").context("opening /dev/urandom")?;
        let mut file =
            File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        std::io::copy(&mut std::io::Read::take(random, 125_000_000), &mut file)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
