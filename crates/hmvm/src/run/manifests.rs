//! Lists of what was injected, for `hmvm explain` to tell which files changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use hm_pipeline::Plan;
use hm_pipeline::plan::Decision;
use hm_pipeline::record::RunStore;
use hm_vm::{InjectSource, VmBackend};

/// Stores the lists of the injects of all steps that run, as far as they are not there. That this fails costs an
/// explanation, not the run.
pub(super) async fn save(backend: Arc<dyn VmBackend>, plan: Arc<Plan>, store: RunStore) {
    let mut wanted: BTreeMap<&str, &InjectSource> = BTreeMap::new();
    for id in &plan.order {
        let step = &plan.steps[id.0];
        if matches!(step.decision, Decision::Run(_)) {
            for inject in &step.injects {
                if let Some(digest) = &inject.digest {
                    wanted.entry(digest).or_insert(&inject.source);
                }
            }
        }
    }
    for (digest, source) in wanted {
        if store.has_manifest(digest) {
            continue;
        }
        if let Err(error) = save_one(backend.as_ref(), &store, digest, source).await {
            tracing::debug!(error = %format!("{error:#}"), "a list of injected files was not stored");
        }
    }
}

async fn save_one(
    backend: &dyn VmBackend,
    store: &RunStore,
    digest: &str,
    source: &InjectSource,
) -> anyhow::Result<()> {
    let entries = backend.inject_entries(source).await?;
    // The files may have changed since the plan was made: then this is the list of something else.
    if backend.inject_digest_of(source).await?.as_deref() == Some(digest) {
        store.save_manifest(digest, &entries)?;
    }
    Ok(())
}
