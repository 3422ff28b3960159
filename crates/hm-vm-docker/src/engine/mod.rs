//! The daemon: one connection, one runtime, and what is known of it.

mod connect;
mod daemon;
mod info;
mod reason;
mod runtime;
mod tls;

pub(crate) use connect::ask;
pub(crate) use daemon::Engine;
pub(crate) use info::Outbound;
pub use info::{EngineInfo, EngineKind};
