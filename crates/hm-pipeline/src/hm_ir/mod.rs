//! The graph format of the `hm` command line tool, version 0.

mod map;
mod model;

pub(crate) use map::read;
