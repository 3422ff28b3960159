//! What is measured.

mod chain;
mod containers;
mod fork;
mod images;
mod inject;
mod lines;
mod memory;
mod parallel;
mod program;
mod registry;
mod run;
mod snapshot;
mod steps;
mod tree;
mod workspace;

pub(crate) use run::run;
