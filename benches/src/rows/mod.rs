//! What is measured.

mod fork;
mod inject;
mod memory;
mod program;
mod registry;
mod run;
mod snapshot;
mod steps;
mod tree;

pub(crate) use run::run;
