//! Tests of the plan.

mod fake;
mod keys;
mod random;
mod reasons;
mod selection;
mod world;

pub(crate) use fake::World;
