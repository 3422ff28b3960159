//! Injects of real files, and what the planner asks for.

use std::fs;
use std::path::Path;

use hm_vm_core::Error;

use super::fake::World;
use crate::pipeline::{CacheMode, Inject, Outputs, Pipeline, StepBase};
use crate::plan::{Plan, PlanOptions};
use crate::testing::{pipeline, step};

fn inject(source: &str, target: &str) -> Inject {
    Inject {
        source: source.into(),
        target: target.into(),
        include: Vec::new(),
        exclude: Vec::new(),
        ignore_files: true,
        with_outputs: false,
    }
}

/// A directory with a file, a directory `src`, and a pipeline of `count` steps in it that all inject `.`.
fn project(count: usize) -> (tempfile::TempDir, Pipeline) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("src")).unwrap();
    fs::write(directory.path().join("a [1].txt"), "").unwrap();
    let mut steps = Vec::new();
    for i in 0..count {
        let mut one = step(&format!("s{i}"));
        one.working_dir = "/src".into();
        one.injects.push(inject(".", "/src"));
        steps.push(one);
    }
    let mut pipeline = pipeline(steps);
    pipeline.directory = fs::canonicalize(directory.path()).unwrap();
    (directory, pipeline)
}

async fn failure(pipeline: Pipeline) -> anyhow::Error {
    Plan::make(pipeline, &World::default(), &PlanOptions::default())
        .await
        .unwrap_err()
}

#[tokio::test]
async fn everything_is_asked_for_once() {
    let (_directory, mut pipeline) = project(5);
    pipeline.steps[3].injects[0].source = "./src/..".into();
    pipeline.steps[4].base = StepBase::Image("debian".into());
    let world = World::default();
    world.plain(&pipeline).await;
    assert_eq!(world.count("source"), 1);
    assert_eq!(world.count("image host"), 1);
    assert_eq!(world.count("image debian"), 1);
}

#[tokio::test]
async fn what_decides_no_key_is_not_asked_for() {
    let (_directory, mut pipeline) = project(3);
    pipeline.steps[0].cache.mode = CacheMode::Off;
    pipeline.steps[1] = pipeline.steps[1].clone().forking(0);
    pipeline.steps[2].cache.mode = CacheMode::Key("mine".into());
    let world = World::default();
    let plan = world.plain(&pipeline).await;
    assert_eq!(world.count("source") + world.count("image"), 0);
    assert_eq!(plan.steps[0].injects[0].digest, None);
    assert_eq!(
        plan.steps[0].injects[0].source.directory,
        pipeline.directory
    );
}

#[tokio::test]
async fn the_inject_into_the_working_directory_is_the_one_of_the_key() {
    let (_directory, mut pipeline) = project(1);
    pipeline.steps[0].injects.push(inject("src", "/opt"));
    let plan = World::default().plain(&pipeline).await;
    let step = &plan.steps[0];
    let components = step.components.as_ref().unwrap();
    assert_eq!(components.inject, step.injects[0].digest);
    assert_eq!(
        components.extra.get("inject:/opt"),
        step.injects[1].digest.as_ref()
    );
    assert!(step.injects[1].digest.is_some());
}

#[tokio::test]
async fn a_single_file_is_brought_alone() {
    let (_directory, mut pipeline) = project(1);
    pipeline.steps[0].injects[0].source = "a [1].txt".into();
    let plan = World::default().plain(&pipeline).await;
    let source = &plan.steps[0].injects[0].source;
    assert_eq!(source.directory, pipeline.directory);
    assert_eq!(source.include, ["/a \\[1\\].txt"]);
    assert!(!source.ignore_files && source.exclude.is_empty());
}

#[tokio::test]
async fn outputs_are_left_out_unless_they_are_wanted() {
    let (_directory, mut pipeline) = project(2);
    pipeline.steps[0].injects[0].exclude.push("*.tmp".into());
    pipeline.steps[1].outputs.push(Outputs {
        pattern: "app".into(),
        to: "dist".into(),
    });
    let plan = World::default().plain(&pipeline).await;
    assert_eq!(
        plan.steps[0].injects[0].source.exclude,
        ["*.tmp", "/dist/app"]
    );
    pipeline.steps[0].injects[0].with_outputs = true;
    let plan = World::default().plain(&pipeline).await;
    assert_eq!(plan.steps[0].injects[0].source.exclude, ["*.tmp"]);
}

#[tokio::test]
async fn a_source_that_is_not_there_is_named_with_its_step() {
    let (_directory, mut pipeline) = project(1);
    pipeline.steps[0].injects[0].source = "gone".into();
    let path = pipeline.directory.join("gone");
    let error = failure(pipeline).await;
    let Some(Error::InvalidInput { what, reason }) = error.downcast_ref() else {
        panic!("{error:?}");
    };
    assert_eq!(what, "inject \"gone\" of step \"s0\"");
    assert_eq!(*reason, format!("{} does not exist", path.display()));
}

#[tokio::test]
async fn a_source_of_a_step_outside_of_the_run_is_not_looked_at() {
    let (_directory, mut pipeline) = project(2);
    pipeline.steps[0].injects[0].source = "gone".into();
    let world = World::default();
    let plan = world.plan(&pipeline, &super::fake::targets(&["s1"])).await;
    assert!(plan.steps[0].injects.is_empty());
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named_with_its_step() {
    let (_directory, mut pipeline) = project(1);
    pipeline.steps[0].base = StepBase::Image("broken".into());
    let error = failure(pipeline).await;
    assert_eq!(error.to_string(), "image \"broken\" of step \"s0\"");
    assert!(matches!(
        error.downcast_ref(),
        Some(Error::ImageNotFound { .. })
    ));
}

#[tokio::test]
async fn files_that_cannot_be_told_leave_the_step_without_a_key() {
    let (_directory, mut pipeline) = project(2);
    pipeline.steps[1].injects[0].source = "src".into();
    let mut world = World::default();
    world.unknown_sources.push("src".into());
    let plan = world.plain(&pipeline).await;
    assert!(plan.steps[0].key.is_some());
    assert_eq!(super::fake::decisions(&plan), ["NoEntry", "NoDigest"]);
    assert!(Path::new(&plan.steps[1].injects[0].source.directory).ends_with("src"));
}
