//! What a run did, and what must hold for every one.

use std::collections::BTreeSet;
use std::time::Duration;

use hm_vm_core::CancelCause;

use super::super::RunOutcome;
use super::fake::World;
use crate::event::{RunEvent, StepOutcome, Verdict};
use crate::pipeline::StepId;
use crate::runner::StepTry;

/// A try as the runner saw it.
#[derive(Clone, Debug)]
pub(super) struct SeenTry {
    pub(super) attempt: StepTry,
    pub(super) cause: Option<CancelCause>,
    pub(super) killed: bool,
}

/// What a run did.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) outcome: RunOutcome,
    pub(super) events: Vec<(Duration, RunEvent)>,
    pub(super) tries: Vec<SeenTry>,
    pub(super) values: Vec<Option<u64>>,
}

impl Seen {
    /// What holds for every run.
    pub(super) fn check(world: &World, outcome: RunOutcome) -> Self {
        let state = std::mem::take(&mut *world.state());
        assert_eq!(state.complaints, Vec::<String>::new());
        assert_eq!(state.running, Vec::new(), "nothing is left alive");
        let order = &world.case.plan.order;
        let ended: BTreeSet<StepId> = order.iter().copied().collect();
        assert_eq!(state.ended, ended, "each step ends");
        let seen = Self {
            outcome,
            events: state.events,
            tries: state.tries,
            values: state.values,
        };
        seen.check_frame(order.len());
        for &step in order {
            seen.check_events_of(step);
        }
        seen
    }

    fn check_frame(&self, count: usize) {
        assert!(matches!(
            self.events.first(),
            Some((_, RunEvent::RunStarted { steps, .. })) if *steps == count
        ));
        assert!(matches!(
            self.events.last(),
            Some((_, RunEvent::RunEnded { verdict, .. })) if *verdict == self.outcome.verdict
        ));
        let ends = self
            .events
            .iter()
            .filter(|(_, it)| matches!(it, RunEvent::RunEnded { .. }));
        assert_eq!(ends.count(), 1);
    }

    /// A step's events are those of its tries, and a retry stands between two of them.
    fn check_events_of(&self, id: StepId) {
        let mut started = Vec::new();
        let mut last_retried = 0;
        let mut over = false;
        for (_, event) in &self.events {
            match event {
                RunEvent::StepStarted { step, attempt } if *step == id => {
                    assert!(!over, "{id} starts after its end");
                    started.push(*attempt);
                }
                RunEvent::StepRetried { step, attempt, .. } if *step == id => {
                    assert_eq!(started.last(), Some(attempt), "{id} is retried once a try");
                    assert!(last_retried < *attempt);
                    last_retried = *attempt;
                }
                RunEvent::StepEnded { step, .. } if *step == id => over = true,
                _ => {}
            }
        }
        let tries = self.tries_of(id);
        let told: Vec<u32> = tries
            .iter()
            .filter(|it| !it.attempt.rebuild)
            .map(|it| it.attempt.attempt)
            .collect();
        assert_eq!(started, told, "each try of {id} is told");
        let numbers: Vec<u32> = tries.iter().map(|it| it.attempt.attempt).collect();
        assert_eq!(
            numbers,
            (1..=tries.len() as u32).collect::<Vec<_>>(),
            "tries of {id} are numbered"
        );
        let result = self.outcome.results[id.0].as_ref().unwrap();
        assert_eq!(result.attempt as usize, told.len());
    }

    pub(super) fn tries_of(&self, step: StepId) -> Vec<&SeenTry> {
        let tries = self.tries.iter();
        tries.filter(|it| it.attempt.step == step).collect()
    }

    pub(super) fn end(&self, step: usize) -> &StepOutcome {
        &self.outcome.results[step].as_ref().unwrap().outcome
    }

    pub(super) fn ends(&self) -> Vec<&StepOutcome> {
        (0..self.outcome.results.len())
            .map(|step| self.end(step))
            .collect()
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.outcome.verdict
    }

    /// The steps in the order of their first tries.
    pub(super) fn started(&self) -> Vec<usize> {
        let tries = self.tries.iter();
        let first = tries.filter(|it| it.attempt.attempt == 1);
        first.map(|it| it.attempt.step.0).collect()
    }

    /// When a step's end was told.
    pub(super) fn ended_at(&self, id: usize) -> Duration {
        let mut ends = self.events.iter().filter_map(|(at, event)| match event {
            RunEvent::StepEnded { step, .. } if step.0 == id => Some(*at),
            _ => None,
        });
        ends.next().unwrap()
    }

    pub(super) fn notices(&self) -> Vec<&str> {
        let events = self.events.iter();
        let notices = events.filter_map(|(_, event)| match event {
            RunEvent::Notice { text, .. } => Some(text.as_str()),
            _ => None,
        });
        notices.collect()
    }
}
