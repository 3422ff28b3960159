//! Waiting for a descriptor in an asynchronous program.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor whose readiness can be awaited: a process descriptor, a terminal.
///
/// # Errors
///
/// When the kernel cannot tell about such a descriptor.
///
/// # Panics
///
/// Outside of a Tokio runtime with its I/O driver.
pub fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: needed because Tokio cannot know of a type that its number stays the same open
    // file. An `OwnedFd` is just that, and nothing closes it before the `AsyncFd` lets go of it.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(Into::into)
}
