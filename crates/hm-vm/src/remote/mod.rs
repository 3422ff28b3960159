//! A cache shared with other machines.
//!
//! The engine asks it when a key has no result here, before it runs anything, and gives it what it has run.
//!
//! A shared cache is help, never a condition: whatever goes wrong with it is a warning, takes a bounded time, and the
//! command runs.
//!
//! [`port`] is what the engine asks for.

mod port;

pub use port::{Fetched, FetchedLog, Published, RemoteCache, RemoteEntry, RemoteReport};
