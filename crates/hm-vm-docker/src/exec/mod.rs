//! Running one command: request, output, report.
//!
//! A started container's helper is reached through one connection, attached before the start: its input are the helper's
//! requests, its output are the command's streams. A [`job`](Job) is one request and all that comes of it. It runs on the engine's
//! thread to its end; whoever asked for it may go, which kills what runs, and the next one waits until the
//! helper has reported.

mod attached;
mod job;
mod outcome;
mod output;
mod request;

pub(crate) use attached::{Attached, nonce};
pub(crate) use job::{Ended, Job};
pub(crate) use outcome::judge;
pub(crate) use output::{JobSide, Watcher, pipes};
pub(crate) use request::Command;
