//! Racers that take turns, and what came out.

use std::fmt;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// This project on the sandbox backend.
    Ours,
    /// This project on the backend of containers.
    OursDocker,
    /// `bwrap` on the unpacked root.
    Bwrap,
    /// `runc run` on the unpacked root.
    Runc,
    /// The `docker` program with a daemon.
    Docker,
    /// The published Docker-only crate of the same API with the same daemon.
    DockerOnly,
    /// `docker build` with the BuildKit of that daemon.
    BuildKit,
    /// `buildah build --layers`.
    Buildah,
    /// `skopeo copy` to a layout, then `umoci unpack`.
    SkopeoUmoci,
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ours => "hm-vm (sandbox)",
            Self::OursDocker => "hm-vm (docker)",
            Self::Bwrap => "bwrap",
            Self::Runc => "runc",
            Self::Docker => "docker",
            Self::DockerOnly => "Docker-only crate",
            Self::BuildKit => "docker build",
            Self::Buildah => "buildah",
            Self::SkopeoUmoci => "skopeo + umoci",
        })
    }
}

/// Sorted measurements of one racer; never empty.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// `None` without a single measurement.
    pub(crate) fn new(mut durations: Vec<Duration>) -> Option<Self> {
        durations.sort();
        (!durations.is_empty()).then_some(Self(durations))
    }

    /// The middle one; of an even number the mean of the two in the middle.
    pub(crate) fn median(&self) -> Duration {
        let middle = self.0.len() / 2;
        if self.0.len() % 2 == 1 {
            self.0[middle]
        } else {
            (self.0[middle - 1] + self.0[middle]) / 2
        }
    }

    pub(crate) fn minimum(&self) -> Duration {
        self.0[0]
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// What came out for one racer.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Measured(Samples),
    /// Not there on this machine, or not able to do this at all.
    Missing(String),
    /// It was tried, and went wrong.
    Failed(String),
}

/// One contestant of a row.
pub(crate) struct Racer<'a> {
    who: Who,
    rounds: usize,
    run: Result<Box<dyn FnMut() -> anyhow::Result<Duration> + 'a>, String>,
}

impl fmt::Debug for Racer<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({} rounds)", self.who, self.rounds)
    }
}

impl<'a> Racer<'a> {
    /// `run` does one round and tells how long the compared part of it took.
    pub(crate) fn new(
        who: Who,
        rounds: usize,
        run: impl FnMut() -> anyhow::Result<Duration> + 'a,
    ) -> Self {
        Self {
            who,
            rounds,
            run: Ok(Box::new(run)),
        }
    }

    /// A racer that cannot take part.
    pub(crate) fn missing(who: Who, why: impl Into<String>) -> Self {
        Self {
            who,
            rounds: 0,
            run: Err(why.into()),
        }
    }

    /// A racer if its peer is there.
    pub(crate) fn of<P>(
        who: Who,
        peer: Result<P, String>,
        rounds: usize,
        mut run: impl FnMut(&P) -> anyhow::Result<Duration> + 'a,
    ) -> Self
    where
        P: 'a,
    {
        match peer {
            Ok(peer) => Self::new(who, rounds, move || run(&peer)),
            Err(why) => Self::missing(who, why),
        }
    }
}

/// Lets the racers take turns, so that whatever else the machine does meets all of them alike. A racer with fewer
/// rounds is spread over the whole race. Each warms up once, unless it runs only once or twice.
pub(crate) fn race(racers: Vec<Racer<'_>>) -> Vec<(Who, Outcome)> {
    let most = racers.iter().map(|racer| racer.rounds).max().unwrap_or(0);
    let mut lanes: Vec<Lane<'_>> = racers.into_iter().map(Lane::new).collect();
    for lane in &mut lanes {
        if lane.racer.rounds > 2 {
            lane.warm_up();
        }
    }
    for round in 0..most {
        for lane in &mut lanes {
            let rounds = lane.racer.rounds;
            if (round + 1) * rounds / most > round * rounds / most {
                lane.step();
            }
        }
    }
    lanes.into_iter().map(Lane::finish).collect()
}

/// A racer during the race.
struct Lane<'a> {
    racer: Racer<'a>,
    durations: Vec<Duration>,
    failure: Option<String>,
}

impl<'a> Lane<'a> {
    fn new(racer: Racer<'a>) -> Self {
        Self {
            racer,
            durations: Vec::new(),
            failure: None,
        }
    }

    fn run(&mut self) -> Option<Duration> {
        let Ok(run) = &mut self.racer.run else {
            return None;
        };
        if self.failure.is_some() {
            return None;
        }
        match run() {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.failure = Some(format!("{error:#}"));
                None
            }
        }
    }

    fn warm_up(&mut self) {
        self.run();
    }

    fn step(&mut self) {
        let duration = self.run();
        self.durations.extend(duration);
    }

    fn finish(self) -> (Who, Outcome) {
        let outcome = match (self.racer.run, self.failure, Samples::new(self.durations)) {
            (Err(why), _, _) => Outcome::Missing(why),
            (Ok(_), Some(failure), _) => Outcome::Failed(failure),
            (Ok(_), None, Some(samples)) => Outcome::Measured(samples),
            (Ok(_), None, None) => Outcome::Missing("not run".into()),
        };
        (self.racer.who, outcome)
    }
}

/// Waits for the end of a process that must succeed, and looks at its peak of memory on the way; in KiB.
pub(crate) fn peak_until_the_end(child: &mut Child) -> anyhow::Result<i64> {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(status) = child.try_wait().context("waiting for hmvm")? {
            ensure!(status.success(), "hmvm failed: {status}");
            return Ok(peak);
        }
        // A process that just ended has none any more.
        peak = kib(&path, "VmHWM:").map_or(peak, |now| now.max(peak));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One line of a table of `name: number kB`, in KiB.
pub(crate) fn kib(path: &str, name: &str) -> anyhow::Result<i64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{path} has no {name}"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn racers_take_turns_and_the_rarer_one_is_spread() {
        let order = RefCell::new(String::new());
        let racer = |who, name, rounds| {
            Racer::new(who, rounds, {
                let order = &order;
                move || {
                    order.borrow_mut().push(name);
                    Ok(Duration::from_millis(1))
                }
            })
        };
        race(vec![racer(Who::Ours, 'a', 4), racer(Who::Bwrap, 'b', 2)]);
        assert_eq!(order.into_inner(), "aaabaab");
    }

    #[test]
    fn a_failure_ends_only_its_own_lane() {
        let outcomes = race(vec![
            Racer::new(Who::Ours, 3, || Ok(Duration::from_millis(2))),
            Racer::new(Who::Runc, 3, || anyhow::bail!("broken")),
            Racer::missing(Who::Docker, "not installed"),
        ]);
        assert!(matches!(&outcomes[0].1, Outcome::Measured(samples) if samples.count() == 3));
        assert!(matches!(&outcomes[1].1, Outcome::Failed(why) if why == "broken"));
        assert!(matches!(&outcomes[2].1, Outcome::Missing(_)));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let samples = Samples::new([4, 1, 3, 2].map(Duration::from_millis).to_vec()).unwrap();
        assert_eq!(samples.median(), Duration::from_micros(2500));
        assert_eq!(samples.minimum(), Duration::from_millis(1));
    }
}
