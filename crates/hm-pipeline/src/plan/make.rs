//! Making a plan.

use std::time::SystemTime;

use anyhow::{Result, ensure};
use hm_vm_core::InjectSource;

use super::conditions;
use super::decide::Case;
use super::forks::Forks;
use super::inputs::{CachedEntry, PlanInputs};
use super::keys::{self, Derivation, StepKey};
use super::model::{Plan, PlanOptions, PlannedInject, PlannedStep, RunReason};
use super::order;
use super::select::{self, Selection};
use super::sources::Sources;
use crate::pipeline::{Pipeline, StepId};

/// What the steps of a run bring in, and their keys; one of each for every step.
struct Keyed {
    injects: Vec<Vec<PlannedInject>>,
    keys: Vec<StepKey>,
}

impl Plan {
    /// Works out what a run would do. Changes nothing, and may be dropped at any time. Looks at the paths of
    /// injects; what is in them, `inputs` tells.
    ///
    /// # Errors
    ///
    /// [`PlanError`](super::PlanError) where `options` name a step that is not there;
    /// [`Error::InvalidInput`](hm_vm_core::Error::InvalidInput) for an inject whose source is not there; failures
    /// of `inputs`. Each is found by `downcast_ref`.
    pub async fn make(
        pipeline: Pipeline,
        inputs: &dyn PlanInputs,
        options: &PlanOptions,
    ) -> Result<Self> {
        let mut order = order::of(&pipeline)?;
        let forks = Forks::of(&pipeline);
        let selection = select::select(&pipeline, &forks, &order, options)?;
        order.retain(|id| selection.selected[id.0]);
        let skipped = conditions::skipped(&pipeline, &order, &selection.selected, inputs).await?;
        let active = order.iter().copied().filter(|id| skipped[id.0].is_none());
        let active: Vec<StepId> = active.collect();
        let keyed = derive(&pipeline, &active, inputs).await?;
        let entries = entries(&keyed.keys, &active, &selection, inputs).await?;
        let case = Case {
            pipeline: &pipeline,
            forks: &forks,
            active: &active,
            selection: &selection,
            keys: &keyed.keys,
            skipped: &skipped,
            entries: &entries,
            now: SystemTime::now(),
        };
        let decisions = case.decide(inputs).await?;
        let parts = keyed.keys.into_iter().zip(keyed.injects).zip(decisions);
        let steps = parts.zip(selection.selected);
        let steps = steps.map(|(((key, injects), decision), selected)| {
            let (key, components) = match key {
                StepKey::Known(key, components) => (Some(key), components.map(|it| *it)),
                StepKey::None(_) => (None, None),
            };
            PlannedStep {
                selected,
                key,
                components,
                injects,
                decision,
            }
        });
        Ok(Self {
            steps: steps.collect(),
            order,
            pipeline,
        })
    }
}

/// Resolves the injects of the active steps, which are in order, and derives their keys.
async fn derive(pipeline: &Pipeline, active: &[StepId], inputs: &dyn PlanInputs) -> Result<Keyed> {
    let mut injects = vec![Vec::new(); pipeline.steps.len()];
    let mut extra: Vec<Option<InjectSource>> = vec![None; pipeline.steps.len()];
    let mut sources = Sources::of(pipeline);
    for id in active {
        injects[id.0] = sources.injects(*id)?;
        extra[id.0] = keys::extra_inputs(pipeline, pipeline.step(*id));
    }
    let mut keys = vec![StepKey::None(RunReason::NoDigest); pipeline.steps.len()];
    let digests = keys::wanted(pipeline, active, &injects, &extra);
    let derivation = Derivation {
        pipeline,
        inputs,
        platform: inputs.platform(),
        digests: digests.ask(inputs).await?,
    };
    for id in active {
        keys[id.0] = derivation.key(*id, &keys, &injects[id.0], extra[id.0].as_ref())?;
    }
    let digests: Vec<Vec<Option<String>>> = injects
        .iter()
        .map(|injects| {
            injects
                .iter()
                .map(|inject| derivation.digests.source(&inject.source).cloned())
                .collect()
        })
        .collect();
    for (inject, digest) in injects
        .iter_mut()
        .flatten()
        .zip(digests.into_iter().flatten())
    {
        inject.digest = digest;
    }
    Ok(Keyed { injects, keys })
}

/// What the cache has, for each step.
async fn entries(
    keys: &[StepKey],
    active: &[StepId],
    selection: &Selection,
    inputs: &dyn PlanInputs,
) -> Result<Vec<Option<CachedEntry>>> {
    let mut entries = vec![None; keys.len()];
    let known = active.iter().filter_map(|id| {
        let key = keys[id.0].key().filter(|_| !selection.asked[id.0])?;
        Some((*id, key.to_owned()))
    });
    let (ids, keys): (Vec<StepId>, Vec<String>) = known.unzip();
    if keys.is_empty() {
        return Ok(entries);
    }
    let found = inputs.entries(&keys).await?;
    ensure!(
        found.len() == keys.len(),
        "the cache was asked for {} keys, and told of {}",
        keys.len(),
        found.len()
    );
    for (id, entry) in ids.into_iter().zip(found) {
        entries[id.0] = entry;
    }
    Ok(entries)
}
