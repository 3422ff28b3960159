//! The images that a run may need.

use std::collections::BTreeSet;

use super::error::PlanError;
use super::forks::Forks;
use super::model::PlanOptions;
use super::{order, select};
use crate::pipeline::{Pipeline, StepBase};

/// Names of the images that steps and services of a run start from, conditions and the cache aside: what has
/// to be there before it can be planned.
///
/// # Errors
///
/// `options` name a step that is not there.
pub fn images(pipeline: &Pipeline, options: &PlanOptions) -> Result<BTreeSet<String>, PlanError> {
    let order = order::of(pipeline)?;
    let selection = select::select(pipeline, &Forks::of(pipeline), &order, options)?;
    let selected = order.iter().filter(|id| selection.selected[id.0]);
    let bases = selected.flat_map(|id| {
        let step = pipeline.step(*id);
        let services = step.services.iter().map(|service| &service.base);
        std::iter::once(&step.base).chain(services)
    });
    Ok(bases
        .filter_map(|base| match base {
            StepBase::Image(image) => Some(image.clone()),
            StepBase::Step(_) => None,
        })
        .collect())
}
