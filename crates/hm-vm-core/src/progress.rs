//! How far a long piece of work is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use serde::Serialize;

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProgressUnit {
    /// Files and links.
    #[default]
    Files,
    /// Bytes.
    Bytes,
}

impl ProgressUnit {
    /// The name used in events and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Bytes => "bytes",
        }
    }
}

/// How far it is at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressState {
    /// What is counted.
    pub unit: ProgressUnit,
    /// How many are done.
    pub done: u64,
    /// How many there are, if that is known.
    pub total: Option<u64>,
}

/// Counts what is done of one piece of work at a time, for whoever watches from another thread.
/// Clones share the count. A count costs an atomic addition; nobody is woken by it.
///
/// Between [`begin`](Self::begin) and the first count, a watcher may see numbers of the piece
/// before: they are for a person's eyes.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    unit: AtomicU8,
    done: AtomicU64,
    /// [`UNKNOWN`] when nobody knows.
    total: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

impl Default for Counts {
    fn default() -> Self {
        Self {
            unit: AtomicU8::new(0),
            done: AtomicU64::new(0),
            total: AtomicU64::new(UNKNOWN),
        }
    }
}

impl Progress {
    /// Nothing done, of nobody knows how much.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another piece of work begins: nothing of it is done.
    pub fn begin(&self, unit: ProgressUnit, total: Option<u64>) {
        let unit = match unit {
            ProgressUnit::Files => 0,
            ProgressUnit::Bytes => 1,
        };
        self.0.unit.store(unit, Ordering::Relaxed);
        self.0.done.store(0, Ordering::Relaxed);
        let total = total.unwrap_or(UNKNOWN);
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// Counts what is done now.
    pub fn add(&self, count: u64) {
        self.0.done.fetch_add(count, Ordering::Relaxed);
    }

    /// All is done, if it is known how much that is.
    pub fn complete(&self) {
        let total = self.0.total.load(Ordering::Relaxed);
        if total != UNKNOWN {
            self.0.done.store(total, Ordering::Relaxed);
        }
    }

    /// How far it is.
    pub fn now(&self) -> ProgressState {
        let total = self.0.total.load(Ordering::Relaxed);
        ProgressState {
            unit: match self.0.unit.load(Ordering::Relaxed) {
                0 => ProgressUnit::Files,
                _ => ProgressUnit::Bytes,
            },
            done: self.0.done.load(Ordering::Relaxed),
            total: (total != UNKNOWN).then_some(total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_count() {
        let progress = Progress::new();
        assert_eq!(progress.now(), ProgressState::default());
        let worker = progress.clone();
        worker.begin(ProgressUnit::Bytes, Some(10));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| worker.add(2));
            }
        });
        let state = ProgressState {
            unit: ProgressUnit::Bytes,
            done: 8,
            total: Some(10),
        };
        assert_eq!(progress.now(), state);
        worker.complete();
        assert_eq!(progress.now(), ProgressState { done: 10, ..state });
    }

    #[test]
    fn another_piece_of_work_begins_at_nothing() {
        let progress = Progress::new();
        progress.begin(ProgressUnit::Bytes, Some(10));
        progress.add(10);
        progress.begin(ProgressUnit::Files, None);
        progress.complete();
        assert_eq!(progress.now(), ProgressState::default());
    }
}
