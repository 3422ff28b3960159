//! Images from a registry and from an archive, and a cache shared through a registry.

use std::time::Duration;

use super::memory::mib;
use crate::bench::Bench;
use crate::images::{Images, Kind};
use crate::measure::{Racer, Who, race};
use crate::report::Report;
use crate::row::{Figure, Row, Target};

/// Pull, import, and remote hits.
pub(crate) fn measure(bench: &Bench, report: &mut Report) {
    let images = Images::prepare(bench).map_err(|error| format!("{error:#}"));
    let images = images.as_ref().map_err(Clone::clone);
    report.add(vec![
        pull(bench, images.clone()),
        load(bench, images.clone()),
        one_step(bench, images.clone()),
        ten_steps(bench, images.clone()),
    ]);
    let peak = images.and_then(|images| images.peak().map_err(|error| format!("{error:#}")));
    report.add_figures(vec![Figure {
        title: "peak memory of `hmvm image pull` of that image".to_owned(),
        value: peak.map(mib),
        unit: "MiB",
        at_most: Some(300.0),
    }]);
}

fn pull(bench: &Bench, images: Result<&Images<'_>, String>) -> Row {
    let outcomes = race(vec![
        Racer::of(Who::Ours, images.clone(), bench.rounds(6), |images| {
            images.hmvm(Kind::Pull)
        }),
        Racer::of(Who::Docker, images.clone(), bench.rounds(5), |images| {
            images.docker_pull()
        }),
        Racer::of(Who::SkopeoUmoci, images, bench.rounds(5), |images| {
            images.skopeo_umoci()
        }),
    ]);
    Row::new(
        "pull",
        "pull and unpack a Debian image of 200 MB in one layer from a registry on this machine, whole process",
        outcomes,
    )
    .with_target(Target::TimesOf {
        factor: 1.0,
        row: "pull",
        who: Who::Docker,
    })
}

fn load(bench: &Bench, images: Result<&Images<'_>, String>) -> Row {
    let outcomes = race(vec![
        Racer::of(Who::Ours, images.clone(), bench.rounds(6), |images| {
            images.hmvm(Kind::Archive)
        }),
        Racer::of(Who::Docker, images, bench.rounds(5), |images| {
            images.docker_load()
        }),
    ]);
    Row::new(
        "load",
        "import the same image from an archive of `docker save`, whole process",
        outcomes,
    )
    .with_target(Target::TimesOf {
        factor: 1.0,
        row: "load",
        who: Who::Docker,
    })
}

fn one_step(bench: &Bench, images: Result<&Images<'_>, String>) -> Row {
    let outcomes = race(vec![Racer::of(
        Who::Ours,
        images,
        bench.rounds(8),
        |images| images.remote_hit("one", 1),
    )]);
    Row::new(
        "remote-hit",
        "remote hit of a step with a layer of 10 MB, `hmvm run`, whole process",
        outcomes,
    )
    .with_target(Target::AtMost(Duration::from_millis(150)))
}

fn ten_steps(bench: &Bench, images: Result<&Images<'_>, String>) -> Row {
    let outcomes = race(vec![Racer::of(
        Who::Ours,
        images,
        bench.rounds(8),
        |images| images.remote_hit("ten", 10),
    )]);
    Row::new(
        "remote-ten",
        "run of ten steps that only the shared cache has, `hmvm run`, whole process",
        outcomes,
    )
    .with_target(Target::AtMost(Duration::from_secs(1)))
}
