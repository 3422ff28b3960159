//! The rows.

mod connection;
mod schema;
pub(crate) mod stack;

pub(crate) use connection::{Db, Failure};
