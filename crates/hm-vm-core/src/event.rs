//! The phases of an execution.

use std::time::Duration;

use serde::Serialize;

use crate::progress::ProgressState;

/// One part of an execution. They come in this order; not every execution has every phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// The key is looked up.
    Lookup,
    /// Another execution, here or in another process, is producing the same key.
    Wait,
    /// The result is brought from a cache shared with other machines, if that has it.
    Fetch,
    /// The VM is created from an image.
    Create,
    /// The VM is forked from a snapshot.
    Restore,
    /// Host files go in.
    Inject,
    /// What only a command that runs needs is had: its turn at something, secrets, services.
    Prepare,
    /// The command runs.
    Exec,
    /// The state is kept.
    Snapshot,
    /// The snapshot is entered under its key, and what that evicts is removed.
    Publish,
    /// The VM is ended.
    Destroy,
}

impl Phase {
    /// The name used in events and on the closing line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Wait => "wait",
            Self::Fetch => "fetch",
            Self::Create => "create",
            Self::Restore => "restore",
            Self::Inject => "inject",
            Self::Prepare => "prepare",
            Self::Exec => "exec",
            Self::Snapshot => "snapshot",
            Self::Publish => "publish",
            Self::Destroy => "destroy",
        }
    }
}

/// What happens during an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A phase begins.
    Started(Phase),
    /// A phase ended, in success or failure.
    Ended {
        /// The phase.
        phase: Phase,
        /// How long it took.
        took: Duration,
    },
    /// How far a phase that takes long is: not more than five times a second, and only while it changes. A
    /// phase may consist of several pieces, each with a count of its own.
    Progress {
        /// The phase.
        phase: Phase,
        /// How far it is.
        state: ProgressState,
    },
    /// Something that the user should know, although the execution goes on: a weaker protection
    /// that was allowed, a clean-up that failed.
    Notice(String),
}

/// Receives events, in order. Called on the execution's own task: must not block.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn on_event(&self, event: &Event);
}

/// How long each phase took. Phases that did not happen are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PhaseTimes(Vec<(Phase, Duration)>);

impl PhaseTimes {
    /// Adds a phase that ended.
    pub fn push(&mut self, phase: Phase, took: Duration) {
        self.0.push((phase, took));
    }

    /// The phases in the order in which they ended.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, Duration)> + '_ {
        self.0.iter().copied()
    }

    /// Time of one phase, if it happened.
    pub fn get(&self, phase: Phase) -> Option<Duration> {
        self.iter()
            .find(|(candidate, _)| *candidate == phase)
            .map(|(_, took)| took)
    }

    /// Time of all phases together.
    pub fn total(&self) -> Duration {
        self.iter().map(|(_, took)| took).sum()
    }
}
