//! What steps take up while they run.

use std::collections::HashMap;

use super::options::ScheduleOptions;
use crate::pipeline::{CacheSharing, Step, StepId};
use crate::plan::Plan;

/// For each place of a step that runs, places of steps that only replay their result.
const REPLAYS_PER_PLACE: usize = 4;

/// What one step takes up.
#[derive(Clone, Debug, Default)]
struct Demand {
    cpus: u32,
    memory_mib: u64,
    /// Cache directories that it must have for itself, by number.
    locks: Vec<usize>,
    /// It declares more than there is.
    alone: bool,
}

/// What there is, and what is taken. The caller takes for a try what it gives back after it.
#[derive(Debug)]
pub(super) struct Capacity {
    places: usize,
    replay_places: usize,
    cpus: u32,
    memory_mib: u64,
    /// A step that runs alone is running.
    closed: bool,
    /// By number of the cache directory.
    held: Vec<bool>,
    running: usize,
    /// By step.
    demands: Vec<Demand>,
}

impl Capacity {
    pub(super) fn new(plan: &Plan, options: &ScheduleOptions) -> Self {
        let mut numbers = HashMap::new();
        let demands = plan
            .pipeline
            .steps
            .iter()
            .map(|step| Demand::of(step, options, &mut numbers))
            .collect();
        let places = options.parallelism.get();
        Self {
            places,
            replay_places: places.saturating_mul(REPLAYS_PER_PLACE),
            cpus: options.cpus,
            memory_mib: options.memory_mib,
            closed: false,
            held: vec![false; numbers.len()],
            running: 0,
            demands,
        }
    }

    /// Takes a place for a replay, if there is one.
    pub(super) fn take_replay(&mut self) -> bool {
        let free = self.replay_places > 0;
        self.replay_places -= usize::from(free);
        free
    }

    /// Gives back what [`take_replay`](Self::take_replay) took.
    pub(super) fn release_replay(&mut self) {
        self.replay_places += 1;
    }

    /// Takes what the first of these steps needs that may start now, and returns it.
    pub(super) fn take_first(&mut self, steps: impl Iterator<Item = StepId>) -> Option<StepId> {
        if self.places == 0 || self.closed {
            return None;
        }
        // Cache directories that are held, or that a step further ahead waits for.
        let mut denied: Option<Vec<bool>> = None;
        for step in steps {
            let demand = &self.demands[step.0];
            let denied_now = denied.as_ref().unwrap_or(&self.held);
            if demand.locks.iter().any(|&lock| denied_now[lock]) {
                let denied = denied.get_or_insert_with(|| self.held.clone());
                for &lock in &demand.locks {
                    denied[lock] = true;
                }
                continue;
            }
            if !self.has_room(demand) {
                return None;
            }
            self.take(step);
            return Some(step);
        }
        None
    }

    fn has_room(&self, demand: &Demand) -> bool {
        if demand.alone {
            return self.running == 0;
        }
        demand.cpus <= self.cpus && demand.memory_mib <= self.memory_mib
    }

    fn take(&mut self, step: StepId) {
        let demand = &self.demands[step.0];
        self.places -= 1;
        self.running += 1;
        if demand.alone {
            self.closed = true;
        } else {
            self.cpus -= demand.cpus;
            self.memory_mib -= demand.memory_mib;
        }
        for &lock in &demand.locks {
            self.held[lock] = true;
        }
    }

    /// Gives back what [`take_first`](Self::take_first) took for this step.
    pub(super) fn release(&mut self, step: StepId) {
        let demand = &self.demands[step.0];
        self.places += 1;
        self.running -= 1;
        if demand.alone {
            self.closed = false;
        } else {
            self.cpus += demand.cpus;
            self.memory_mib += demand.memory_mib;
        }
        for &lock in &demand.locks {
            self.held[lock] = false;
        }
    }
}

impl Demand {
    fn of<'a>(
        step: &'a Step,
        options: &ScheduleOptions,
        numbers: &mut HashMap<&'a str, usize>,
    ) -> Self {
        let mut demand = Self::default();
        let limits = std::iter::once(&step.limits).chain(step.services.iter().map(|it| &it.limits));
        for limits in limits {
            demand.cpus = demand.cpus.saturating_add(limits.cpus.unwrap_or(0));
            let memory_mib = limits.memory_mib.unwrap_or(0);
            demand.memory_mib = demand.memory_mib.saturating_add(memory_mib);
        }
        demand.alone = demand.cpus > options.cpus || demand.memory_mib > options.memory_mib;
        for cache in &step.caches {
            if cache.sharing == CacheSharing::Locked {
                let next = numbers.len();
                demand
                    .locks
                    .push(*numbers.entry(&cache.name).or_insert(next));
            }
        }
        demand
    }
}
