//! Which steps belong to a run, and which the user asked for.

use std::collections::HashMap;

use super::error::PlanError;
use super::forks::Forks;
use super::model::PlanOptions;
use crate::pipeline::{Pipeline, StepId};

/// Names offered for one that is not known.
const SIMILAR_NAMES: usize = 3;
/// From which similarity on, of 1, a name is offered.
const SIMILAR_ENOUGH: f64 = 0.75;

/// What the user asks of the steps; one of each for every step.
pub(super) struct Selection {
    /// It belongs to the run.
    pub(super) selected: Vec<bool>,
    /// The user named it as one to run.
    pub(super) named: Vec<bool>,
    /// It is to run whatever the cache has.
    pub(super) asked: Vec<bool>,
}

/// Works the selection out. `order` is that of all steps.
pub(super) fn select(
    pipeline: &Pipeline,
    forks: &Forks,
    order: &[StepId],
    options: &PlanOptions,
) -> Result<Selection, PlanError> {
    let names = names_of(pipeline);
    let mut named = vec![false; pipeline.steps.len()];
    for target in &options.targets {
        for id in find(pipeline, &names, target)? {
            named[id.0] = true;
        }
    }
    let mut selected = if options.targets.is_empty() {
        vec![true; pipeline.steps.len()]
    } else {
        named.clone()
    };
    for id in order.iter().rev().filter(|_| !options.targets.is_empty()) {
        if selected[id.0] {
            for other in pipeline.step(*id).waits_for() {
                selected[other.0] = true;
            }
        }
    }
    let mut asked = vec![options.no_cache; pipeline.steps.len()];
    for name in &options.from {
        let ids = find(pipeline, &names, name)?;
        if !ids.iter().any(|id| selected[id.0]) {
            return Err(PlanError::NotSelected { name: name.clone() });
        }
        for id in ids {
            asked[id.0] = true;
        }
    }
    for id in order {
        if asked[id.0] {
            for user in forks.users(*id) {
                asked[user.0] = true;
            }
        }
    }
    Ok(Selection {
        selected,
        named,
        asked,
    })
}

/// Every name that a step can be asked for by, with its steps.
fn names_of(pipeline: &Pipeline) -> HashMap<&str, Vec<StepId>> {
    let mut names: HashMap<&str, Vec<StepId>> = HashMap::new();
    for id in pipeline.ids() {
        let step = pipeline.step(id);
        names.entry(&step.name).or_default().push(id);
        if step.group != step.name {
            names.entry(&step.group).or_default().push(id);
        }
    }
    names
}

fn find(
    pipeline: &Pipeline,
    names: &HashMap<&str, Vec<StepId>>,
    name: &str,
) -> Result<Vec<StepId>, PlanError> {
    let found = names.get(name).cloned();
    found.ok_or_else(|| PlanError::UnknownStep {
        name: name.to_owned(),
        similar: similar(pipeline, name),
    })
}

/// Names that resemble one, the most similar first.
fn similar(pipeline: &Pipeline, name: &str) -> Vec<String> {
    let mut known: Vec<&str> = pipeline
        .steps
        .iter()
        .flat_map(|step| [step.name.as_str(), step.group.as_str()])
        .collect();
    known.sort_unstable();
    known.dedup();
    let name = name.to_lowercase();
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|other| (strsim::jaro_winkler(&name, &other.to_lowercase()), other))
        .filter(|(score, _)| *score >= SIMILAR_ENOUGH)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.truncate(SIMILAR_NAMES);
    scored
        .into_iter()
        .map(|(_, other)| other.to_owned())
        .collect()
}
