//! What tests of hm-vm share.
//!
//! | Module | What |
//! |---|---|
//! | [`conformance`] | the rules of the contract as checks that any backend can be put to |
//! | [`fake`] | a strict backend in memory, for tests of what stands above the backends |
//! | [`failpoint`] | named points at which test code lets an operation fail or wait |
//! | [`registry`] | a real registry, a proxy before it that misbehaves, images for it |
//! | [`engines`] | real Docker daemons and Podman services |
//! | [`roots`], [`images`] | directories and images for tests |
//! | [`privilege`], [`skip`] | what tests need, and visible skips where it is missing |
#![forbid(unsafe_code)]

pub mod conformance;
pub mod engines;
pub mod failpoint;
pub mod fake;
pub mod images;
pub mod privilege;
pub mod registry;
pub mod roots;
pub mod skip;

mod lock;
mod process;
