//! Backend of hm-vm: containers of Docker and Podman, through the Engine API.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use hm_vm_docker::DockerBackend;
//!
//! let backend = DockerBackend::connect()?;
//! println!("{}", backend.engine());
//! # Ok(())
//! # }
//! ```
//!
//! # How a VM is a container
//!
//! A VM is a container whose first process is a program of ours, the *helper*
//! ([`hm_vm_sys::helper`]), which comes in through a read-only volume below `/dev`, so that no file of
//! it is in any snapshot. It takes requests on its standard input and runs one command at a time. When the
//! command's first process has ended, it kills all others, waits until they are gone, and only then reports: what is left
//! in the container between commands is the helper alone, blocked in a read. That is why
//! a snapshot (`commit`) needs no pause to be consistent, why a second command costs a message and not
//! a process of the daemon's, and why nothing goes on when this program is killed: the helper's input ends, and it with it.
//!
//! # Who owns what
//!
//! Everything made in the daemon has labels and a name that say whose it is (the table is in `objects.rs`): the *owner* (a random number in
//! the state directory) and the *session* (one opened backend, alive while it holds a lock file). What an owner's dead
//! sessions left is removed when the next one connects. Nothing of anybody else is touched.
//!
//! # Runtime
//!
//! All requests to the daemon run on a thread of the backend's own and to their end, also when the caller drops its future: so
//! a container that is being created is known when it appears, and is removed.
#![forbid(unsafe_code)]

mod backend;
mod caches;
mod container;
mod copy;
mod doctor;
mod empty_image;
mod endpoint;
mod engine;
mod environment;
mod error;
mod exec;
mod helper;
mod image;
mod image_facts;
mod inject;
mod limits;
mod lists;
mod mounts;
mod network;
mod objects;
mod options;
mod outputs;
mod presence;
mod private_network;
mod protections;
mod pull;
mod reap;
mod secrets;
mod session;
mod snapshot;
mod terminal;
mod vm;

pub use backend::DockerBackend;
pub use caches::CacheVolume;
pub use doctor::{Finding, FindingState, examine};
pub use endpoint::{Candidate, Endpoint, EndpointSearch, TlsFiles};
pub use engine::{EngineInfo, EngineKind};
pub use error::DockerError;
pub use options::{DockerOptions, PullPolicy};
pub use pull::{PullOptions, PullProgress, PulledImage};
pub use snapshot::SnapshotFacts;
