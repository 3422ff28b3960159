//! Starting a process in namespaces of its own.
//!
//! ```text
//!  spawner thread ──clone──▶ intermediate ──clone──▶ PID 1 ──exec──▶ init ──fork──▶ command
//!  (waits)                   outer operations        inner operations
//!                            enters the user         mounts, pivot, drops
//!                            namespace, unshares     privileges
//! ```
//!
//! Everything that happens between clone and exec is prepared by the caller as a list of [`Op`]:
//! plain data, which [`Launch`] prints for debugging. The two processes share the caller's memory
//! (`CLONE_VM | CLONE_VFORK`), so starting costs the same however large the caller is, and the
//! interpreter reports the failed operation by writing it down. It allocates nothing.
//!
//! *Init* is a small static program (`init/main.rs`), embedded here and executed from a sealed
//! memory file. It reaps zombies, passes a SIGTERM on to every process of the VM, and reports how
//! the command ended. The kernel kills all that is left when it ends; it gets SIGKILL when the
//! spawner thread, hence our process, dies.

mod calls;
mod init;
mod interpreter;
mod op;
mod operations;
mod places;
mod process;
mod spawner;

pub(crate) use calls::loopback_up;
pub use op::{Concealed, Launch, Namespaces, NetworkOf, Op};
pub use process::{CommandEnd, Process, ProcessUsage};
pub use spawner::{LaunchError, launch};
