//! Cancellation with a cause.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::error::Error;

/// Why an execution was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelCause {
    /// The user asked for it, by Ctrl-C for instance.
    User,
    /// The time given to the command, or to the run that it belongs to, is over.
    Timeout(Duration),
    /// Something else failed that this execution was part of.
    Sibling(String),
    /// Another reason, in words.
    Other(String),
}

impl fmt::Display for CancelCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("by the user"),
            Self::Timeout(limit) => write!(f, "time limit of {} s", limit.as_secs_f64()),
            Self::Sibling(name) => write!(f, "because {name} failed"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// How urgent a cancellation is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Running,
    /// Ask the command to end, and give it its grace period.
    Cancelled(CancelCause),
    /// End it at once.
    Killed(CancelCause),
}

/// A token that cancels one or several executions. Clones share the state.
///
/// The first [`cancel`](Self::cancel) decides the cause: later ones change nothing. A
/// [`kill`](Self::kill) after it, or instead of it, skips the grace period.
#[derive(Clone, Debug)]
pub struct Cancellation {
    state: Arc<watch::Sender<State>>,
}

impl Default for Cancellation {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancellation {
    /// A token that nobody has cancelled.
    pub fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State::Running)),
        }
    }

    /// Cancels: commands get SIGTERM, then SIGKILL after their grace period. A second call does
    /// nothing.
    pub fn cancel(&self, cause: CancelCause) {
        self.state.send_if_modified(|state| {
            let first = *state == State::Running;
            if first {
                *state = State::Cancelled(cause);
            }
            first
        });
    }

    /// Cancels without a grace period. Keeps the cause of an earlier [`cancel`](Self::cancel).
    pub fn kill(&self, cause: CancelCause) {
        self.state.send_if_modified(|state| {
            let cause = match state {
                State::Running => cause,
                State::Cancelled(earlier) => earlier.clone(),
                State::Killed(_) => return false,
            };
            *state = State::Killed(cause);
            true
        });
    }

    /// The cause, once cancelled.
    pub fn cause(&self) -> Option<CancelCause> {
        match &*self.state.borrow() {
            State::Running => None,
            State::Cancelled(cause) | State::Killed(cause) => Some(cause.clone()),
        }
    }

    /// Whether [`kill`](Self::kill) was called.
    pub fn is_killed(&self) -> bool {
        matches!(*self.state.borrow(), State::Killed(_))
    }

    /// Waits until cancelled, and returns the cause. Safe to drop at any time.
    pub async fn cancelled(&self) -> CancelCause {
        let mut receiver = self.state.subscribe();
        loop {
            if let Some(cause) = self.cause() {
                return cause;
            }
            // The sender lives in `self`, so waiting cannot fail while this future exists.
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until [`kill`](Self::kill) was called. Safe to drop at any time.
    pub async fn killed(&self) {
        let mut receiver = self.state.subscribe();
        while !self.is_killed() {
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Fails when cancelled: for use between two steps of work.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when the cause is a timeout, else [`Error::Cancelled`].
    pub fn check(&self) -> Result<(), Error> {
        self.cause().map_or(Ok(()), |cause| Err(cause.into()))
    }
}

impl From<CancelCause> for Error {
    fn from(cause: CancelCause) -> Self {
        match cause {
            CancelCause::Timeout(limit) => Self::TimedOut { limit },
            cause => Self::Cancelled { cause },
        }
    }
}
