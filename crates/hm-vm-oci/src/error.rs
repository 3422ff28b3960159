//! What can go wrong with images of others.

use std::fmt;
use std::io;

use hm_vm_core::Error;

/// A failure to read or write an image. Says what was being done to what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// Input, of the user or of the other side, that cannot be used.
    #[error("{what}: {reason}")]
    Invalid {
        /// What is wrong.
        what: String,
        /// Why.
        reason: String,
    },
    /// It is not there.
    #[error("{what} does not exist at {place}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Whom.
        place: String,
    },
    /// A file or directory that contains no image; perhaps a root file system.
    #[error("{path} is no image: neither an OCI layout, nor what docker save or podman save write")]
    NoImage {
        /// It.
        path: String,
    },
    /// The other side wants other credentials, or none will do.
    #[error("{place} refuses {doing}: {reason}")]
    Denied {
        /// What was being done.
        doing: String,
        /// Who refuses.
        place: String,
        /// In its words.
        reason: String,
    },
    /// Content is not what its digest or size says.
    #[error("{what} is not what it should be: {reason}")]
    Mismatch {
        /// Digest or name of the part.
        what: String,
        /// What was found.
        reason: String,
    },
    /// The other side cannot be reached, is too slow, or breaks off.
    #[error("{doing} at {place}: {reason}")]
    Unreachable {
        /// What was being done.
        doing: String,
        /// To whom.
        place: String,
        /// What happened.
        reason: String,
    },
    /// The other side answers with a failure of its own, or against the protocol.
    #[error("{doing}: {place} answers {reason}")]
    Answer {
        /// What was being done.
        doing: String,
        /// Who answers.
        place: String,
        /// Its answer.
        reason: String,
    },
    /// A file on this machine.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: String,
        /// What happened.
        source: io::Error,
    },
    /// The caller asked for an end.
    #[error("{0}")]
    Cancelled(Error),
}

impl OciError {
    /// Input that cannot be used.
    pub fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.into(),
            reason: reason.into(),
        }
    }

    /// A failure to do something to a file of this machine; what a source or [`Verified`](crate::Verified) put into the
    /// `std::io::Error` comes out of it again.
    pub fn of_io(doing: &'static str, path: impl fmt::Display, source: io::Error) -> Self {
        source.downcast().unwrap_or_else(|source| Self::Io {
            doing,
            path: path.to_string(),
            source,
        })
    }

    /// Whether it may work another time, or elsewhere: a cache may go on without.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Answer { .. })
    }
}
