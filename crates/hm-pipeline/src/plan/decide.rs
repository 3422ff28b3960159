//! Which steps run, and why: the rule of the [module](super).

use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::future::join_all;

use super::forks::Forks;
use super::inputs::{CachedEntry, PlanInputs};
use super::keys::StepKey;
use super::model::{Decision, RunReason};
use super::select::Selection;
use crate::event::SkipReason;
use crate::pipeline::{Pipeline, StepId};

/// All that decides what becomes of the steps; one of each for every step.
pub(super) struct Case<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) forks: &'a Forks,
    /// The steps that belong to the run and are not skipped for a condition, in order.
    pub(super) active: &'a [StepId],
    pub(super) selection: &'a Selection,
    pub(super) keys: &'a [StepKey],
    pub(super) skipped: &'a [Option<SkipReason>],
    pub(super) entries: &'a [Option<CachedEntry>],
    pub(super) now: SystemTime,
}

/// What is known of a step before its neighbours are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Its result can be used, if its parent does not run.
    Good,
    /// There is none: it runs, unless nobody wants it.
    Missing,
    /// It runs.
    Bad,
}

impl Case<'_> {
    /// Decides.
    pub(super) async fn decide(&self, inputs: &dyn PlanInputs) -> Result<Vec<Decision>> {
        let runs = self.running();
        let mut decisions: Vec<Decision> = self.pipeline.ids().map(|id| self.other(id)).collect();
        for id in self.active {
            if runs[id.0] {
                decisions[id.0] = Decision::Run(self.reason(*id, &runs));
            }
        }
        let missing = self.active.iter().filter_map(|id| {
            let key = self.keys[id.0].key()?;
            let misses = decisions[id.0] == Decision::Run(RunReason::NoEntry);
            misses.then_some((*id, key))
        });
        let missing: Vec<(StepId, &str)> = missing.collect();
        let lost = join_all(missing.iter().map(|(_, key)| inputs.lost(key))).await;
        for ((id, _), lost) in missing.into_iter().zip(lost) {
            if let Some(lost) = lost? {
                decisions[id.0] = Decision::Run(RunReason::Lost(lost));
            }
        }
        Ok(decisions)
    }

    /// What becomes of a step that does not run.
    fn other(&self, id: StepId) -> Decision {
        match (&self.skipped[id.0], &self.entries[id.0]) {
            (Some(reason), _) => Decision::Skip(reason.clone()),
            (None, Some(entry)) => Decision::Hit(entry.clone()),
            (None, None) => Decision::Skip(SkipReason::NotNeeded),
        }
    }

    /// Which steps run: those that must, what forks from them, and what those need that has no result.
    fn running(&self) -> Vec<bool> {
        let mut own = vec![Standing::Missing; self.pipeline.steps.len()];
        for id in self.active {
            own[id.0] = self.own(*id);
        }
        let mut runs = vec![false; own.len()];
        let mut queue: Vec<StepId> = Vec::new();
        for id in self.active {
            let must = match own[id.0] {
                Standing::Good => false,
                Standing::Missing => self.is_wanted(*id),
                Standing::Bad => true,
            };
            if must {
                runs[id.0] = true;
                queue.push(*id);
            }
        }
        while let Some(id) = queue.pop() {
            let users = self.users(id);
            let step = self.pipeline.step(id);
            let missing = step.sources().filter(|id| own[id.0] == Standing::Missing);
            for other in users.chain(missing) {
                if !runs[other.0] {
                    runs[other.0] = true;
                    queue.push(other);
                }
            }
        }
        runs
    }

    /// What forks from a step in this run.
    fn users(&self, id: StepId) -> impl Iterator<Item = StepId> {
        let users = self.forks.users(id).iter().copied();
        users.filter(|user| self.selection.selected[user.0] && self.skipped[user.0].is_none())
    }

    /// Whether a step without a result is wanted for itself, and not only for what forks from it.
    fn is_wanted(&self, id: StepId) -> bool {
        self.selection.named[id.0]
            || !self.pipeline.step(id).outputs.is_empty()
            || self.users(id).next().is_none()
    }

    fn own(&self, id: StepId) -> Standing {
        if self.selection.asked[id.0] || self.keys[id.0].key().is_none() {
            return Standing::Bad;
        }
        match &self.entries[id.0] {
            None => Standing::Missing,
            Some(entry) if self.expired(id, entry).is_some() => Standing::Bad,
            Some(entry) if self.remade(id, entry).is_some() => Standing::Bad,
            Some(_) => Standing::Good,
        }
    }

    /// Why a step runs that does: the first reason that holds.
    fn reason(&self, id: StepId, runs: &[bool]) -> RunReason {
        if self.selection.asked[id.0] {
            return RunReason::Asked;
        }
        if let StepKey::None(reason) = &self.keys[id.0] {
            return reason.clone();
        }
        let mut sources = self.pipeline.step(id).sources();
        if let Some(source) = sources.find(|source| runs[source.0]) {
            return RunReason::ParentRuns(source);
        }
        let Some(entry) = &self.entries[id.0] else {
            return RunReason::NoEntry;
        };
        let expired = self.expired(id, entry);
        expired
            .or_else(|| self.remade(id, entry))
            .unwrap_or(RunReason::NoEntry)
    }

    fn expired(&self, id: StepId, entry: &CachedEntry) -> Option<RunReason> {
        let ttl = self.pipeline.step(id).cache.ttl?;
        // A clock that went back makes nothing old.
        let age = self.now.duration_since(entry.created);
        let age = age.unwrap_or(Duration::ZERO);
        (age > ttl).then_some(RunReason::Expired { age, ttl })
    }

    /// A result of which the parent was not recorded counts as made from the one that is there.
    fn remade(&self, id: StepId, entry: &CachedEntry) -> Option<RunReason> {
        let parent = self.pipeline.step(id).parent()?;
        let now = &self.entries[parent.0].as_ref()?.snapshot;
        (entry.parent.as_ref()? != now).then_some(RunReason::ParentRemade(parent))
    }
}
