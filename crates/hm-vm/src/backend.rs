//! The traits that a backend implements.
//!
//! The rules that every backend keeps are numbered in [`hm_vm_core::backend`].

pub use hm_vm_core::{Capabilities, ExecOutcome, ExecRequest, Limit, Vm, VmBackend};
