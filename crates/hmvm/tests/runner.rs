//! Tests of the program as a whole, from the outside.

#[path = "runner/bad_input.rs"]
mod bad_input;
#[path = "runner/bad_paths.rs"]
mod bad_paths;
#[path = "runner/cache.rs"]
mod cache;
#[path = "runner/crash.rs"]
mod crash;
#[path = "runner/docker/mod.rs"]
mod docker;
#[path = "runner/docs.rs"]
mod docs;
#[path = "runner/env.rs"]
mod env;
#[path = "runner/example.rs"]
mod example;
#[path = "runner/examples.rs"]
mod examples;
#[path = "runner/exec.rs"]
mod exec;
#[path = "runner/full_disk.rs"]
mod full_disk;
#[path = "runner/images/mod.rs"]
mod images;
#[path = "runner/limits.rs"]
mod limits;
#[path = "runner/listings.rs"]
mod listings;
#[path = "runner/pipeline/mod.rs"]
mod pipeline;
#[path = "runner/registries.rs"]
mod registries;
#[path = "runner/remote/mod.rs"]
mod remote;
#[path = "runner/sharing.rs"]
mod sharing;
#[path = "runner/shell.rs"]
mod shell;
#[path = "runner/signals.rs"]
mod signals;
#[path = "runner/surroundings.rs"]
mod surroundings;
#[path = "runner/told.rs"]
mod told;
