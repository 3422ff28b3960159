//! Linux calls behind safe functions.
//!
//! This is the only crate of the project with unsafe code, and it knows no other crate of it.
//!
//! | module | what it offers |
//! |---|---|
//! | [`capabilities`] | which capabilities a VM's commands have |
//! | [`userns`] | who is root inside a VM, and work done as that root |
//! | [`launch`] | starting a process in namespaces of its own, from a list of operations |
//! | [`seccomp`] | the system-call filter of a VM's commands |
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod capabilities;
pub mod error;
pub mod launch;
pub mod seccomp;
mod stack;
pub mod userns;

pub use error::SysError;
pub use userns::UserNamespace;
