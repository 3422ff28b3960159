//! A cache shared with other machines.
//!
//! The engine asks it when a key has no result here, before it runs anything, and gives it what it has run.
//!
//! A shared cache is help, never a condition: whatever goes wrong with it is a warning, takes a bounded time, and the
//! command runs.
//!
//! * [`port`]: what the engine asks of it.
//! * `cache`: one that lies in a repository of a registry ([`OciCache`]); `record` is what is in it, `fetch` brings a
//!   result here, `queue` and `publish` bring one there, `health` decides when it is not worth asking any more.

#[cfg(feature = "sandbox")]
mod cache;
#[cfg(feature = "sandbox")]
mod fetch;
#[cfg(feature = "sandbox")]
mod health;
#[cfg(feature = "sandbox")]
mod options;
pub mod port;
#[cfg(feature = "sandbox")]
mod publish;
#[cfg(feature = "sandbox")]
mod queue;
#[cfg(feature = "sandbox")]
mod record;
#[cfg(feature = "sandbox")]
mod repository;

#[cfg(feature = "sandbox")]
pub use cache::OciCache;
#[cfg(feature = "sandbox")]
pub use options::{CacheMode, Notice, OciCacheOptions};
pub use port::{Fetched, FetchedLog, Published, RemoteCache, RemoteEntry, RemoteReport};
#[cfg(feature = "sandbox")]
pub use repository::CacheRepository;
