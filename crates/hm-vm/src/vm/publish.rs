//! Entering a result in the registry, and removing what that replaces or evicts.

use anyhow::Result;
use hm_vm_core::{Phase, SnapshotId};

use super::execute::{Execution, Turn};
use super::guard::Unclaimed;
use crate::registry::{Publication, PutDetails};

/// Snapshots of earlier executions whose removal is tried again by each publication.
const RETRIED_REMOVALS: usize = 8;

impl Execution<'_> {
    /// Enters the snapshot under its key, lets the next one have the turn, and removes what the
    /// entry replaces or evicts.
    pub(super) async fn publish(
        &mut self,
        key: &str,
        snapshot: Unclaimed,
        details: PutDetails,
        turn: Turn,
    ) -> Result<Option<SnapshotId>> {
        if let Err(cancelled) = self.phases.check() {
            self.give_up(snapshot).await;
            return Err(cancelled);
        }
        let begun = self.phases.begin(Phase::Publish);
        let id = snapshot.id()?.clone();
        let entered = self.enter(key, &id, Some(snapshot), details).await;
        drop(turn);
        let entered = match entered {
            Ok(freed) => {
                self.remove_freed(freed).await;
                Ok(Some(id))
            }
            Err(error) => Err(error),
        };
        self.phases.end(begun);
        entered
    }

    /// Enters a snapshot that was brought from elsewhere. One that was here before has no guard: should this
    /// fail, it stays.
    pub(super) async fn enter_fetched_snapshot(
        &mut self,
        key: &str,
        snapshot: &SnapshotId,
        guard: Option<Unclaimed>,
        details: PutDetails,
    ) -> Result<()> {
        let freed = self.enter(key, snapshot, guard, details).await?;
        self.remove_freed(freed).await;
        Ok(())
    }

    /// Puts the snapshot into the registry. It has an owner then; if that fails, it is removed. Returns what the
    /// entry replaces or evicts.
    async fn enter(
        &mut self,
        key: &str,
        id: &SnapshotId,
        unclaimed: Option<Unclaimed>,
        details: PutDetails,
    ) -> Result<Vec<SnapshotId>> {
        let registry = &self.engine.registry;
        let mut publication = Publication::new(key, id, details, true)?;
        match registry.publish_now(&mut publication) {
            Ok(Some(freed)) => {
                unclaimed.and_then(Unclaimed::claim);
                Ok(freed)
            }
            Err(error) => {
                if let Some(unclaimed) = unclaimed {
                    self.give_up(unclaimed).await;
                }
                Err(error)
            }
            // The file is busy. Should this future be dropped, the thread goes on: so the snapshot
            // goes with it, and is claimed or removed there.
            Ok(None) => {
                let registry = registry.handle();
                tokio::task::spawn_blocking(move || {
                    let freed = registry.publish_blocking(publication)?;
                    unclaimed.and_then(Unclaimed::claim);
                    Ok(freed)
                })
                .await?
            }
        }
    }

    async fn give_up(&mut self, snapshot: Unclaimed) {
        if let Err(error) = snapshot.remove().await {
            self.phases
                .notice(|| format!("failed to remove the snapshot: {error:#}"));
        }
    }

    /// Removes what the registry handed back, and tries what earlier executions could not remove.
    async fn remove_freed(&mut self, freed: Vec<SnapshotId>) {
        let (backend, registry) = (&self.engine.backend, &self.engine.registry);
        // All guarded at once: should this be dropped at one, the others go as well.
        let guarded: Vec<(SnapshotId, Unclaimed)> = freed
            .iter()
            .map(|id| (id.clone(), Unclaimed::new(id.clone(), backend, registry)))
            .collect();
        for (id, snapshot) in guarded {
            if let Err(error) = snapshot.remove().await {
                self.phases
                    .notice(|| format!("failed to remove the old snapshot {id}: {error:#}"));
            }
        }
        let earlier = registry
            .doomed(RETRIED_REMOVALS + freed.len())
            .await
            .unwrap_or_default();
        for snapshot in earlier.iter().filter(|id| !freed.contains(id)) {
            if let Err(error) = self.remove_doomed(snapshot).await {
                tracing::debug!(%snapshot, error = %format!("{error:#}"), "a removal failed again");
            }
        }
    }

    async fn remove_doomed(&mut self, snapshot: &SnapshotId) -> Result<()> {
        self.engine.backend.remove_snapshot(snapshot).await?;
        self.engine.registry.settle(snapshot).await
    }
}
