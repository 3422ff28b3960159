//! A world for the planner, held in memory.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use async_trait::async_trait;
use hm_vm_core::{InjectSource, SnapshotId};

use crate::pipeline::{Pipeline, StepId};
use crate::plan::{CachedEntry, Decision, LostEntry, Plan, PlanInputs, PlanOptions, RunReason};

/// The world. Counts what it is asked.
#[derive(Default)]
pub(crate) struct World {
    /// Images whose digest nobody knows.
    pub(super) unknown_images: Vec<String>,
    /// Sources whose digest nobody knows, by the end of their directory.
    pub(super) unknown_sources: Vec<String>,
    pub(super) cache: HashMap<String, CachedEntry>,
    pub(super) lost: HashMap<String, LostEntry>,
    pub(super) changed: Option<Vec<String>>,
    pub(super) variables: HashMap<String, String>,
    /// What is asked, in order.
    pub(super) asked: Mutex<Vec<String>>,
}

impl World {
    /// How often something whose text begins so was asked.
    pub(super) fn count(&self, prefix: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|text| text.starts_with(prefix)).count()
    }

    fn note(&self, text: String) {
        self.asked.lock().unwrap().push(text);
    }

    /// The plan of a pipeline.
    pub(super) async fn plan(&self, pipeline: &Pipeline, options: &PlanOptions) -> Plan {
        Plan::make(pipeline.clone(), self, options).await.unwrap()
    }

    /// The plan of a pipeline without options.
    pub(crate) async fn plain(&self, pipeline: &Pipeline) -> Plan {
        self.plan(pipeline, &PlanOptions::default()).await
    }

    /// Enters a result for every step of a plan that has a key, each made from that of its parent, and forgets
    /// what was asked so far.
    pub(super) fn fill(&mut self, plan: &Plan) {
        self.asked.lock().unwrap().clear();
        for id in &plan.order {
            let parent = plan
                .parent(*id)
                .and_then(|parent| plan.steps[parent.0].key.as_ref())
                .map(|key| snapshot(key));
            if let Some(key) = &plan.steps[id.0].key {
                self.cache.insert(key.clone(), entry(snapshot(key), parent));
            }
        }
    }

    /// Forgets the result of a step.
    pub(super) fn forget(&mut self, plan: &Plan, step: usize) {
        self.cache.remove(plan.steps[step].key.as_ref().unwrap());
    }

    /// Changes the result of a step.
    pub(super) fn change(&mut self, plan: &Plan, step: usize, with: impl Fn(&mut CachedEntry)) {
        with(
            self.cache
                .get_mut(plan.steps[step].key.as_ref().unwrap())
                .unwrap(),
        );
    }
}

/// The snapshot that [`World::fill`] enters for a key.
pub(super) fn snapshot(key: &str) -> SnapshotId {
    SnapshotId::new(format!("of {key}"))
}

fn entry(snapshot: SnapshotId, parent: Option<SnapshotId>) -> CachedEntry {
    CachedEntry {
        snapshot,
        parent,
        created: SystemTime::now(),
        cost: Some(Duration::from_secs(1)),
        elsewhere: false,
    }
}

/// Decisions in short, in the order of the steps.
pub(super) fn decisions(plan: &Plan) -> Vec<String> {
    plan.steps
        .iter()
        .map(|step| match &step.decision {
            Decision::Hit(_) => "hit".to_owned(),
            Decision::Run(RunReason::Expired { .. }) => "Expired".to_owned(),
            Decision::Run(RunReason::Lost(_)) => "Lost".to_owned(),
            Decision::Run(reason) => short(&format!("{reason:?}")),
            Decision::Skip(reason) => short(&format!("skip {reason:?}")),
        })
        .collect()
}

fn short(text: &str) -> String {
    text.replace("(StepId(", "(").replace("))", ")")
}

/// Options with these targets.
pub(super) fn targets(names: &[&str]) -> PlanOptions {
    PlanOptions {
        targets: names.iter().map(|name| (*name).to_owned()).collect(),
        ..PlanOptions::default()
    }
}

/// Names of the steps in the order of the plan.
pub(super) fn order(plan: &Plan) -> Vec<&str> {
    let names = plan.order.iter();
    names
        .map(|id: &StepId| plan.pipeline.step(*id).name.as_str())
        .collect()
}

#[async_trait]
impl PlanInputs for World {
    async fn image_digest(&self, image: &str) -> Result<Option<String>> {
        self.note(format!("image {image}"));
        anyhow::ensure!(
            image != "broken",
            hm_vm_core::Error::ImageNotFound {
                image: image.to_owned()
            }
        );
        let known = !self.unknown_images.iter().any(|unknown| unknown == image);
        Ok(known.then(|| format!("digest of {image}")))
    }

    async fn inject_digest(&self, source: &InjectSource) -> Result<Option<String>> {
        self.note(format!("source {source:?}"));
        let directory = source.directory.to_string_lossy();
        let mut unknown = self.unknown_sources.iter();
        let known = !unknown.any(|end| directory.ends_with(end));
        Ok(known.then(|| format!("digest of {source:?}")))
    }

    async fn entries(&self, keys: &[String]) -> Result<Vec<Option<CachedEntry>>> {
        self.note(format!("entries {}", keys.len()));
        Ok(keys
            .iter()
            .map(|key| self.cache.get(key).cloned())
            .collect())
    }

    async fn lost(&self, key: &str) -> Result<Option<LostEntry>> {
        self.note(format!("lost {key}"));
        Ok(self.lost.get(key).cloned())
    }

    async fn changed_paths(&self) -> Result<Option<Vec<String>>> {
        self.note("changed".into());
        Ok(self.changed.clone())
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn backend(&self) -> &str {
        "fake"
    }
}
