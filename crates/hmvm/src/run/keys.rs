//! The keys of a run, which are the plan's until files change under it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hm_pipeline::pipeline::StepBase;
use hm_pipeline::{Plan, StepId};
use hm_vm::{KeyBase, KeyComponents, VmBackend};

/// What a step is cached under, now.
#[derive(Clone, Debug, Default)]
pub(super) struct StepKey {
    pub(super) key: Option<String>,
    pub(super) components: Option<KeyComponents>,
    /// In the order of the step's injects.
    pub(super) inject_digests: Vec<Option<String>>,
}

/// Keys that differ from the plan's, since the files that a step brings in were not those any more that the plan
/// saw. All that forks from such a step has another key as well.
#[derive(Debug, Default)]
pub(super) struct Keys {
    changed: Mutex<HashMap<StepId, StepKey>>,
}

impl Keys {
    fn changed(&self) -> MutexGuard<'_, HashMap<StepId, StepKey>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of a step, given those of the steps before it.
    pub(super) fn of(&self, plan: &Plan, step: StepId) -> StepKey {
        if let Some(changed) = self.changed().get(&step) {
            return changed.clone();
        }
        let planned = &plan.steps[step.0];
        let mut key = StepKey {
            key: planned.key.clone(),
            components: planned.components.clone(),
            inject_digests: planned
                .injects
                .iter()
                .map(|inject| inject.digest.clone())
                .collect(),
        };
        let parent = match &plan.pipeline.step(step).base {
            StepBase::Step(parent) => self.changed().get(parent).and_then(|it| it.key.clone()),
            StepBase::Image(_) => None,
        };
        if let (Some(parent), Some(components)) = (parent, &mut key.components) {
            components.base = KeyBase::ParentKey(parent);
            key.key = Some(components.key().into());
            self.changed().insert(step, key.clone());
        }
        key
    }

    /// Asks again for what the step brings in, and derives its key from that.
    pub(super) async fn renew(
        &self,
        plan: &Plan,
        step: StepId,
        backend: &dyn VmBackend,
    ) -> anyhow::Result<()> {
        let mut key = self.of(plan, step);
        let working_dir = &plan.pipeline.step(step).working_dir;
        for (place, inject) in plan.steps[step.0].injects.iter().enumerate() {
            let digest = backend.inject_digest_of(&inject.source).await?;
            if let (Some(components), Some(digest)) = (&mut key.components, &digest) {
                if inject.target == *working_dir {
                    components.inject = Some(digest.clone());
                } else {
                    let name = format!("inject:{}", inject.target);
                    components.extra.insert(name, digest.clone());
                }
            }
            key.inject_digests[place] = digest;
        }
        if let Some(components) = &key.components {
            key.key = Some(components.key().into());
        }
        self.changed().insert(step, key);
        Ok(())
    }
}
