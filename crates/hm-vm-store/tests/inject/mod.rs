//! Scans of host directories, and the layers made of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod layer;
mod patterns;
mod scan;
mod support;
