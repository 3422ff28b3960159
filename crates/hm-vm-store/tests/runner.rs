//! All tests of the store, in one program. Started again with a task in its environment, it is a
//! worker that can be killed: see `worker`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests are tests as well, and a skipped test says so"
)]

mod adopting;
mod basics;
mod caches;
mod common;
mod corpus;
mod crash;
mod durability;
mod exporting;
mod flatten;
mod full_disk;
mod import;
mod inject;
mod injecting;
mod opening;
mod outputs;
mod outputs_archived;
mod processes;
mod progress;
mod pulling;
mod reading;
mod viewing;
mod worker;
