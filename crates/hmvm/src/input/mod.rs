//! From text that a person typed to checked values.

pub(crate) mod config;
pub(crate) mod environment;
pub(crate) mod quote;
pub(crate) mod values;

pub(crate) use values::parse_duration;
