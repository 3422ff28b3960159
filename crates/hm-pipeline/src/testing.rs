//! Pipelines and plans made by hand, for tests.

use std::path::PathBuf;

use crate::pipeline::{Pipeline, Step, StepBase, StepId};
use crate::plan::{Decision, Plan, PlannedStep, RunReason};

/// A step on the image `host` that runs `echo NAME`, with nothing else.
pub(crate) fn step(name: &str) -> Step {
    Step {
        group: name.split('[').next().unwrap_or(name).into(),
        ..Step::new(name, StepBase::Image("host".into()), format!("echo {name}"))
    }
}

/// A pipeline `test` of these steps, in the directory `/project`.
pub(crate) fn pipeline(steps: Vec<Step>) -> Pipeline {
    Pipeline {
        name: "test".into(),
        directory: PathBuf::from("/project"),
        backend: None,
        timeout: None,
        parallelism: None,
        changed_since: None,
        remote_cache: None,
        steps,
    }
}

/// A plan in which all steps run, in the order of the pipeline: a step may refer to earlier ones only.
pub(crate) fn plan(pipeline: Pipeline) -> Plan {
    let planned = PlannedStep {
        selected: true,
        key: None,
        components: None,
        injects: Vec::new(),
        decision: Decision::Run(RunReason::NoEntry),
    };
    Plan {
        steps: vec![planned; pipeline.steps.len()],
        order: pipeline.ids().collect(),
        pipeline,
    }
}

impl Step {
    /// The step, forking from another one.
    pub(crate) fn forking(mut self, parent: usize) -> Self {
        self.base = StepBase::Step(StepId(parent));
        self
    }

    /// The step, needing others.
    pub(crate) fn needing(mut self, needs: &[usize]) -> Self {
        self.needs = needs.iter().copied().map(StepId).collect();
        self
    }
}
