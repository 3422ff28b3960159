//! Root file systems from archives and directories.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod archives;
mod directories;
mod docker;
mod hostile;
mod layer_support;
mod layers;
mod layers_hostile;
mod support;
