//! The steps that may start, in the order in which they do.

use std::collections::BTreeSet;

use crate::pipeline::StepId;

/// When it is a step's turn. The step is in the variant's field by its place in the plan's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// Before all others: it goes on in a place that just became free.
    Next(usize),
    /// In the plan's order.
    Ordered(usize),
}

impl Turn {
    /// The step's place in the plan's order.
    fn position(self) -> usize {
        match self {
            Self::Next(position) | Self::Ordered(position) => position,
        }
    }
}

/// What a step that is ready waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// To run.
    Run,
    /// To replay its result.
    Replay,
}

/// The steps that may start.
#[derive(Debug, Default)]
pub(super) struct Queues {
    runs: BTreeSet<Turn>,
    replays: BTreeSet<Turn>,
}

impl Queues {
    fn of(&mut self, queue: Queue) -> &mut BTreeSet<Turn> {
        match queue {
            Queue::Run => &mut self.runs,
            Queue::Replay => &mut self.replays,
        }
    }

    /// Enters a step.
    pub(super) fn insert(&mut self, queue: Queue, turn: Turn) {
        self.of(queue).insert(turn);
    }

    /// Removes a step.
    pub(super) fn remove(&mut self, queue: Queue, turn: Turn) {
        self.of(queue).remove(&turn);
    }

    /// The steps of a queue in their order.
    pub(super) fn steps<'a>(
        &'a self,
        queue: Queue,
        order: &'a [StepId],
    ) -> impl Iterator<Item = StepId> + use<'a> {
        let set = match queue {
            Queue::Run => &self.runs,
            Queue::Replay => &self.replays,
        };
        set.iter().map(|turn| order[turn.position()])
    }
}
