//! VMs, as far as the store knows them: a stack of layers with a writable directory over it.
//!
//! ```text
//!            ┌── lowers(), upper(), work(): mounted by a backend while a command runs
//!  new_vm ──▶│ at rest ──inject──▶ at rest   (upper sealed, inject layer on top, fresh upper)
//!            │         ──commit──▶ at rest   (upper sealed, a snapshot's row, fresh upper)
//!            └───────── remove, drop ──▶ gone
//! ```
//!
//! `inject` and `commit` must only be called at rest: when nothing has the directories mounted.
//! A seal that fails puts the upper directory back: the VM is at rest as before. If even that
//! fails, the VM can only be removed.

mod create;
mod files;
mod fill;
pub(crate) mod inject;
mod read;
mod scan;
mod seal;

pub use create::Base;
pub use files::{InjectReport, Lower, VmFiles};
