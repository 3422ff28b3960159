//! What tests of hm-vm share.
//!
//! | Module | What |
//! |---|---|
//! | [`fake`] | a strict backend in memory, for tests of what stands above the backends |
//! | [`failpoint`] | named points at which test code lets an operation fail or wait |
#![forbid(unsafe_code)]

pub mod failpoint;
pub mod fake;

mod lock;
