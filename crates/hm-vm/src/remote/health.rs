//! Whether a shared cache is worth asking, and telling the user when it is not.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hm_vm_core::Cancellation;
use hm_vm_oci::OciError;
use hm_vm_store::StoreError;

use super::options::{Notice, OciCacheOptions};

/// Why something could not be had from a shared cache, or given to it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The other side.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// What it says is not true, or makes no sense.
    #[error("{what} is not what it should be: {reason}")]
    Lie { what: String, reason: String },
    /// This side.
    #[error(transparent)]
    Store(StoreError),
    /// A file on this machine.
    #[error("{doing}: {source}")]
    Io {
        doing: &'static str,
        source: std::io::Error,
    },
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Slow(Duration),
    /// What it needs is not here any more, or never was: no failure.
    #[error("{0}")]
    Nothing(&'static str),
}

/// What is told once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Unreachable,
    Denied,
    Wrong,
    Here,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Oci(error) => Self::Oci(error),
            StoreError::ImageNotFound { .. } => Self::Nothing("its image is not here"),
            error => Self::Store(error),
        }
    }
}

impl Failure {
    pub(super) fn lie(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Lie {
            what: what.into(),
            reason: reason.into(),
        }
    }

    fn kind(&self) -> Option<Kind> {
        match self {
            Self::Oci(OciError::Denied { .. }) => Some(Kind::Denied),
            Self::Oci(OciError::Unreachable { .. } | OciError::Answer { .. }) | Self::Slow(_) => {
                Some(Kind::Unreachable)
            }
            Self::Oci(OciError::Cancelled(_))
            | Self::Store(StoreError::Cancelled(_))
            | Self::Nothing(_) => None,
            Self::Oci(_) | Self::Lie { .. } => Some(Kind::Wrong),
            // A layer that cannot be unpacked.
            Self::Store(StoreError::Import(_) | StoreError::InvalidInput { .. }) => {
                Some(Kind::Wrong)
            }
            Self::Store(_) | Self::Io { .. } => Some(Kind::Here),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// One after the other.
    failures: u32,
    /// Time that failures have taken.
    lost: Duration,
    off: bool,
    told: BTreeSet<Kind>,
}

/// Counts the failures of one direction, and ends its use when there are too many.
pub(super) struct Health {
    /// What is being done, for people: `asked`, `given results`.
    doing: &'static str,
    place: String,
    failures: u32,
    patience: Duration,
    notice: Option<Notice>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health")
            .field("doing", &self.doing)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Health {
    pub(super) fn new(doing: &'static str, place: &str, options: &OciCacheOptions) -> Self {
        Self {
            doing,
            place: place.to_owned(),
            failures: options.failures.max(1),
            patience: options.patience,
            notice: options.notice.clone(),
            state: Mutex::default(),
        }
    }

    /// Whether it is not to be used any more.
    pub(super) fn is_off(&self) -> bool {
        self.state().off
    }

    /// Something went well.
    pub(super) fn fine(&self) {
        self.state().failures = 0;
    }

    /// Something failed after so long.
    pub(super) fn failed(&self, failure: &Failure, took: Duration) {
        let Some(kind) = failure.kind() else {
            return tracing::debug!(place = self.place, "{failure}");
        };
        let place = &self.place;
        let mut state = self.state();
        state.lost += took;
        // An entry that is wrong says nothing of others.
        let counts = matches!(kind, Kind::Unreachable | Kind::Denied);
        state.failures += u32::from(counts);
        let first = state.told.insert(kind);
        let over =
            kind == Kind::Denied || state.failures >= self.failures || state.lost >= self.patience;
        let off = over && !state.off;
        state.off |= over;
        drop(state);
        if first {
            self.tell(&format!("shared cache {place}: {failure}"));
        } else {
            tracing::debug!(place, "{failure}");
        }
        if off {
            let doing = self.doing;
            self.tell(&format!(
                "the shared cache {place} is not {doing} any more in this run"
            ));
        }
    }

    fn tell(&self, text: &str) {
        match &self.notice {
            Some(notice) => notice(text),
            None => tracing::warn!("{text}"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cancels a piece of work when it is dropped: nobody waits for it any more.
pub(super) struct CancelOnDrop(pub(super) Cancellation);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0
            .cancel(hm_vm_core::CancelCause::Other("nobody waits for it".into()));
    }
}
