//! Linux calls behind safe functions.
//!
//! This is the only crate of the project with unsafe code, and it knows no other crate of it.
//!
//! | module | what it offers |
//! |---|---|
//! | [`capabilities`] | which capabilities a VM's commands have |
//! | [`cgroup`] | limits and accounting through control groups |
//! | [`disk`] | file systems of limited size |
//! | [`helper`] | the first process of a container, and how to talk to it |
//! | [`userns`] | who is root inside a VM, and work done as that root |
//! | [`launch`] | starting a process in namespaces of its own, from a list of operations |
//! | [`netns`] | a network that several VMs join |
//! | [`readiness`] | waiting for a descriptor in an asynchronous program |
//! | [`pasta`] | outbound network without root |
//! | [`probe`] | what this machine can do, and how to mend what it cannot |
//! | [`seccomp`] | the system-call filter of a VM's commands |

pub mod capabilities;
pub mod cgroup;
pub mod disk;
pub mod error;
pub mod helper;
pub mod launch;
pub mod netns;
pub mod pasta;
pub mod probe;
pub mod readiness;
pub mod seccomp;
mod stack;
mod subids;
pub mod userns;

pub use error::SysError;
pub use userns::UserNamespace;
