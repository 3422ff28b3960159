//! The failures that callers can tell apart.

use std::time::Duration;

use crate::cancel::CancelCause;
use crate::capabilities::Limit;
use crate::types::SnapshotId;

/// Why something failed. Carried inside `anyhow::Error`, where `downcast_ref::<Error>()` finds it.
///
/// Backends return these where one fits; anything else is an internal failure of the backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command took longer than it may. Nothing that it started is alive.
    #[error("the command did not end within {}", human_duration(*.limit))]
    TimedOut {
        /// The time that it had.
        limit: Duration,
    },
    /// The execution was cancelled. Nothing that it started is alive.
    #[error("cancelled: {cause}")]
    Cancelled {
        /// Who cancelled, or why.
        cause: CancelCause,
    },
    /// No image of that name.
    #[error("image {image:?} not found")]
    ImageNotFound {
        /// The reference as given.
        image: String,
    },
    /// No snapshot of that id.
    #[error("snapshot {snapshot} not found")]
    SnapshotNotFound {
        /// The id as given.
        snapshot: SnapshotId,
    },
    /// The command went over a limit, and the machine ended it for that.
    #[error("the command exceeded its {} limit: {detail}", .limit.name())]
    LimitExceeded {
        /// The limit.
        limit: Limit,
        /// What happened.
        detail: String,
    },
    /// A limit was asked for that cannot be enforced here.
    #[error("the {} limit cannot be enforced: {reason}", .limit.name())]
    LimitNotEnforceable {
        /// The limit.
        limit: Limit,
        /// Why not, and what the user can do.
        reason: String,
    },
    /// A protection cannot be had on this machine, and its absence was not allowed by name.
    #[error("the protection {protection:?} cannot be had: {reason}")]
    ProtectionUnavailable {
        /// Its name, as accepted by `allow_weaker`.
        protection: &'static str,
        /// Why not, and what the user can do.
        reason: String,
    },
    /// The backend does not work on this machine.
    #[error("backend {backend:?} is not available: {reason}")]
    BackendUnavailable {
        /// The backend's name.
        backend: String,
        /// Why not, and what the user can do.
        reason: String,
    },
    /// The backend works, but not for this.
    #[error("{what} is not supported by this backend")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// Something given by the caller is wrong.
    #[error("{what}: {reason}")]
    InvalidInput {
        /// What was given.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The files of an inject are not those any more that a key was derived from.
    #[error("the files of {directory} have changed since their digest was taken")]
    InputChanged {
        /// The host directory.
        directory: String,
        /// The digest of what was found now.
        digest: String,
    },
    /// The disk, or the quota of the user, is full.
    #[error("no space left while {doing}")]
    NoSpace {
        /// What was being done to what.
        doing: String,
    },
    /// The registry or the store is corrupt, foreign, or written by a newer program.
    #[error("{path} cannot be used: {reason}")]
    BadState {
        /// The file or directory.
        path: String,
        /// What is wrong with it, and what the user can do.
        reason: String,
    },
    /// The VM died for a reason that is neither the command's exit nor a limit.
    #[error("the VM was lost: {reason}")]
    VmLost {
        /// What is known.
        reason: String,
    },
}

fn human_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis} ms");
    }
    let seconds = duration.as_secs_f64();
    if seconds.fract() == 0.0 {
        format!("{seconds} s")
    } else {
        format!("{seconds:.1} s")
    }
}
