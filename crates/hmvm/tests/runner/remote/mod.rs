//! A cache that stores share through a real registry.

mod faults;
mod random;
mod shared;
mod support;
