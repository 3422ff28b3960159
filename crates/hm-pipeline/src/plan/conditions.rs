//! Which steps are not run, as a condition does not hold.

use std::cell::RefCell;
use std::path::{Component, Path};

use anyhow::{Context, Result};
use hm_vm_core::Error;

use super::inputs::PlanInputs;
use super::patterns;
use crate::condition::Condition;
use crate::event::SkipReason;
use crate::pipeline::{Pipeline, Step, StepId};

/// Why steps are skipped, one for each: their own condition, or that of what they fork from. Looks at those
/// alone that are selected.
pub(super) async fn skipped(
    pipeline: &Pipeline,
    order: &[StepId],
    selected: &[bool],
    inputs: &dyn PlanInputs,
) -> Result<Vec<Option<SkipReason>>> {
    let chosen = || order.iter().copied().filter(|id| selected[id.0]);
    let mut conditions = chosen().filter_map(|id| pipeline.step(id).condition.as_ref());
    let changes = if conditions.any(Condition::needs_changes) {
        let paths = inputs.changed_paths().await;
        Changes::Known(paths.context("looking for changed files")?)
    } else {
        Changes::NotAsked
    };
    let mut skipped = vec![None; pipeline.steps.len()];
    for id in chosen() {
        let step = pipeline.step(id);
        let source = step.sources().find(|source| skipped[source.0].is_some());
        skipped[id.0] = match source {
            Some(source) => Some(SkipReason::Dependency(source)),
            None if holds(step, &changes, inputs)? => None,
            None => Some(SkipReason::Condition),
        };
    }
    Ok(skipped)
}

/// Paths that changed.
enum Changes {
    /// No condition asks.
    NotAsked,
    /// Where it is known which.
    Known(Option<Vec<String>>),
}

fn holds(step: &Step, changes: &Changes, inputs: &dyn PlanInputs) -> Result<bool> {
    let Some(condition) = &step.condition else {
        return Ok(true);
    };
    let failure = RefCell::new(None);
    let changed = |patterns: &[String]| match changes.any(patterns) {
        Ok(any) => any,
        Err(error) => {
            failure.borrow_mut().get_or_insert(error);
            true
        }
    };
    let holds = condition.evaluate(&|name| inputs.variable(name), &changed);
    match failure.into_inner() {
        None => Ok(holds),
        Some(error) => Err(Error::InvalidInput {
            what: format!("condition of step {:?}", step.name),
            reason: error.to_string(),
        }
        .into()),
    }
}

impl Changes {
    /// Whether one of the patterns names a path that changed.
    fn any(&self, patterns: &[String]) -> Result<bool, ignore::Error> {
        let Self::Known(Some(paths)) = self else {
            return Ok(true);
        };
        let matcher = patterns::matcher(patterns.iter().cloned())?;
        let mut inside = paths.iter().map(Path::new).filter(|path| is_inside(path));
        Ok(inside.any(|path| matcher.matched_path_or_any_parents(path, false).is_ignore()))
    }
}

/// Whether a path stays below the directory that it is relative to.
fn is_inside(path: &Path) -> bool {
    path.components()
        .all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}
