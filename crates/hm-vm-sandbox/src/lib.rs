//! Backend of hm-vm: Linux namespaces and overlayfs on the store.
//!
//! The default backend: it needs no daemon and no root. A VM at rest is files only. For the time
//! of a command, namespaces and an overlay mount are made for it (see `plan.rs`); when
//! the command has ended, the kernel has killed whatever it left, and the mount is gone. So a
//! snapshot is the renaming of a directory, and a VM that nobody runs costs no memory.
#![forbid(unsafe_code)]

mod backend;
mod command;
mod covers;
mod disk;
mod doctor;
mod environment;
mod error;
mod exec;
mod files;
mod limits;
mod mounts;
mod network;
mod plan;
mod private_network;
mod terminal;
mod user;
mod vm;

pub use backend::{SandboxBackend, SandboxOptions};
pub use doctor::{Check, CheckState, doctor, lacking};
