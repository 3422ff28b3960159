//! `hmvm run` and the commands around it, for real, on the `host` image.

mod cached;
mod commands;
mod faults;
mod features;
mod killed;
mod seen;
pub(crate) mod support;
mod verdicts;
