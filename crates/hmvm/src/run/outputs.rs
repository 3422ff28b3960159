//! Bringing a step's outputs to the host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use hm_pipeline::pipeline::StepBase;
use hm_pipeline::{Plan, Step, StepId};
use hm_vm::{OutputRequest, SnapshotId, VmBackend};

use crate::backend::Keeper;
use crate::failure::Problem;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// Files written, or there already.
    pub(super) files: u64,
    /// What the user should know.
    pub(super) notices: Vec<String>,
}

/// The guest directory that a step runs in: the one that its image names where the file says nothing.
pub(super) async fn working_dir(keeper: &Keeper, plan: &Plan, id: StepId) -> Result<String> {
    let step = plan.pipeline.step(id);
    if !step.working_dir.is_empty() {
        return Ok(step.working_dir.clone());
    }
    let mut base = &step.base;
    let image = loop {
        match base {
            StepBase::Image(image) => break image,
            StepBase::Step(parent) => base = &plan.pipeline.step(*parent).base,
        }
    };
    let named = keeper.image_working_dir(image).await?;
    Ok(named.unwrap_or_else(|| "/".to_owned()))
}

/// Copies all outputs of `step` out of its snapshot. A path that is not there is an error; a pattern that finds
/// nothing, a notice.
/// Relative paths start from the guest directory `base`.
pub(super) async fn bring(
    backend: &dyn VmBackend,
    step: &Step,
    base: &str,
    snapshot: &SnapshotId,
    directory: &Path,
) -> Result<Brought> {
    let mut by_place: BTreeMap<&PathBuf, Vec<String>> = BTreeMap::new();
    for outputs in &step.outputs {
        by_place
            .entry(&outputs.to)
            .or_default()
            .push(outputs.pattern.clone());
    }
    let mut brought = Brought::default();
    for (to, patterns) in by_place {
        let request = OutputRequest {
            patterns,
            base: base.to_owned(),
            to: directory.join(to),
        };
        let report = backend.copy_outputs(snapshot, &request).await?;
        brought.files += report.files + report.unchanged;
        for path in report.skipped {
            let text = format!("output {} is no file and is left out", path.display());
            brought.notices.push(text);
        }
        for pattern in report.unmatched {
            if !is_pattern(&pattern) {
                return Err(Problem::new(format!("output {pattern:?} is not there"))
                    .hint("relative paths start from the step's workdir")
                    .into());
            }
            brought
                .notices
                .push(format!("output {pattern:?} matches nothing"));
        }
    }
    Ok(brought)
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}
