//! Registries: the client's side of the OCI distribution protocol.
//!
//! | Module | What |
//! |---|---|
//! | `options` | what a client is told: hosts, proxies, time limits |
//! | `client`, `runtime` | the client and its threads |
//! | `endpoint`, `transport` | one server: its address, its connections, what it asks of us |
//! | `challenge`, `token` | who we are |
//! | `request`, `answer`, `retry` | one request, its failures, its repetition |
//! | `repository` | a repository as a source and a destination |
//! | `download`, `upload`, `pipe` | blobs as streams |
//!
//! # Threads and processes
//!
//! Requests run on the client's own threads; callers wait for them. A blob is handed over through memory (`pipe`), under
//! a lock that is held for moments only: the reader may be a process that shares our memory.
//!
//! # Limits
//!
//! Connections are made within `connect_timeout`. A server that sends nothing for `idle_timeout` is given up. What
//! failed for reasons that may pass is tried again `retries` times, blobs from where they broke off; progress starts the
//! count anew.

mod answer;
mod challenge;
mod client;
mod download;
mod endpoint;
mod options;
mod pipe;
mod repository;
mod request;
mod retry;
mod runtime;
mod token;
mod transport;
mod upload;

pub use client::RegistryClient;
pub use options::{HostOptions, Proxies, RegistryOptions};
pub use repository::Repository;
