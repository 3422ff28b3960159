//! The interactive side of a VM.

use std::fmt;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Number of columns.
    pub columns: u16,
    /// Number of rows.
    pub rows: u16,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self {
            columns: 80,
            rows: 24,
        }
    }
}

/// The user's side of a terminal session. The VM side is a pseudo-terminal of its own, so that
/// nothing inside reaches the user's real terminal but through these streams.
pub struct Terminal {
    /// Bytes that the user types. At its end, the session gets a hang-up.
    pub input: Pin<Box<dyn AsyncRead + Send>>,
    /// Where the session's output goes.
    pub output: Pin<Box<dyn AsyncWrite + Send>>,
    /// The size now, and each change of it.
    pub size: watch::Receiver<TerminalSize>,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal")
            .field("size", &*self.size.borrow())
            .finish_non_exhaustive()
    }
}
