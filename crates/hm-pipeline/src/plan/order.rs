//! An order in which every step comes after what it waits for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::error::PlanError;
use crate::pipeline::{Pipeline, StepId};

/// All steps, each after what it waits for; in the order of the pipeline where that leaves a choice.
pub(super) fn of(pipeline: &Pipeline) -> Result<Vec<StepId>, PlanError> {
    let count = pipeline.steps.len();
    let mut waiting = vec![0_usize; count];
    let mut followers: Vec<Vec<StepId>> = vec![Vec::new(); count];
    for id in pipeline.ids() {
        for other in pipeline.step(id).waits_for() {
            waiting[id.0] += 1;
            followers[other.0].push(id);
        }
    }
    let mut ready: BinaryHeap<Reverse<StepId>> = pipeline
        .ids()
        .filter(|id| waiting[id.0] == 0)
        .map(Reverse)
        .collect();
    let mut order = Vec::with_capacity(count);
    while let Some(Reverse(id)) = ready.pop() {
        order.push(id);
        for follower in &followers[id.0] {
            waiting[follower.0] -= 1;
            if waiting[follower.0] == 0 {
                ready.push(Reverse(*follower));
            }
        }
    }
    if order.len() == count {
        return Ok(order);
    }
    let stuck = pipeline.ids().filter(|id| waiting[id.0] > 0);
    Err(PlanError::Cycle {
        steps: stuck.map(|id| pipeline.step(id).name.clone()).collect(),
    })
}
