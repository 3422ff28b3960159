//! Failures of the daemon, and of the way to it.

use hm_vm_core::Error;

/// What daemons say, as a failure of their own, of what is removed while it is being looked at. The first three are Docker's: of an
/// image that two remove at once, and of a container's image. The others are Podman's, the last one of a container's image: what is
/// no image is taken for a name.
const NOT_FOUND: [&str; 9] = [
    "unrecognized image ID",
    "failed to get digest sha256:",
    "layer does not exist",
    "image not known",
    "layer not known",
    "size is not known",
    "no such image",
    "no such container",
    "cannot specify 64-byte hexadecimal strings",
];

/// What went wrong with the daemon. Where a [`hm_vm_core::Error`] fits, that is given instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DockerError {
    /// The daemon refused, or did not understand.
    #[error("{doing}: the daemon answers {status}: {message}")]
    Refused {
        /// What was being done to what.
        doing: String,
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The daemon did not answer, or not in full.
    #[error("{doing}: {source}")]
    Connection {
        /// What was being done to what.
        doing: String,
        /// What happened.
        source: bollard::errors::Error,
    },
    /// Output, or the report of how a command ended, is incomplete.
    #[error("{doing}: the connection ended before the command's report: {detail}")]
    Incomplete {
        /// What was being done to what.
        doing: String,
        /// What is known.
        detail: String,
    },
    /// The daemon could not do what it had begun.
    #[error("{doing}: the daemon says: {message}")]
    Failed {
        /// What was being done to what.
        doing: String,
        /// Its words.
        message: String,
    },
    /// The daemon said something that cannot be.
    #[error("{doing}: the daemon's answer makes no sense: {detail}")]
    Nonsense {
        /// What was being done to what.
        doing: String,
        /// What is wrong.
        detail: String,
    },
}

/// Names what was being done when the daemon failed.
pub(crate) trait Doing<T> {
    /// `doing` as in "creating a container of alpine:3".
    fn doing(self, doing: impl Into<String>) -> Result<T, DockerError>;
}

impl<T> Doing<T> for Result<T, bollard::errors::Error> {
    fn doing(self, doing: impl Into<String>) -> Result<T, DockerError> {
        use bollard::errors::Error::DockerResponseServerError;
        self.map_err(|error| match error {
            DockerResponseServerError {
                status_code,
                message,
            } => DockerError::Refused {
                doing: doing.into(),
                status: status_code,
                message,
            },
            source => DockerError::Connection {
                doing: doing.into(),
                source,
            },
        })
    }
}

impl DockerError {
    /// The HTTP status, if the daemon answered with a failure.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Refused { status: 404, .. } => true,
            Self::Refused {
                status: 500,
                message,
                ..
            } => NOT_FOUND.iter().any(|words| message.contains(words)),
            _ => false,
        }
    }

    /// Whether it cannot be done now, because of something else that is there or under way.
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// The contract's error where the daemon's disk is full, itself otherwise.
    pub(crate) fn contract(self) -> anyhow::Error {
        let words = self.to_string().to_ascii_lowercase();
        if words.contains("no space left on device") || words.contains("disk quota exceeded") {
            let doing = match self {
                Self::Refused { doing, .. }
                | Self::Connection { doing, .. }
                | Self::Failed { doing, .. }
                | Self::Incomplete { doing, .. }
                | Self::Nonsense { doing, .. } => doing,
            };
            return Error::NoSpace { doing }.into();
        }
        self.into()
    }
}
