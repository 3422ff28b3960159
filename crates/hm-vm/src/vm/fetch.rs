//! A cache shared with other machines: asking it for a result, and giving it one.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Result;
use hm_vm_core::{ImageSource, KeyBase, Phase, Progress, RemoteHit, SnapshotId};

use super::execute::Execution;
use super::guard::Unclaimed;
use super::phases::or_cancel;
use super::watch::watch;
use crate::output::RecordedOutput;
use crate::registry::{Hit, PutDetails, StoredOutput};
use crate::remote::{Fetched, FetchedLog, Published, RemoteCache, RemoteEntry};

impl Execution<'_> {
    /// Asks the shared cache, and enters what it has. To be called by whoever has the turn for the key.
    pub(super) async fn fetch(&mut self, key: &str) -> Result<Option<(Hit, RemoteHit)>> {
        let Some(remote) = self.engine.remote.clone() else {
            return Ok(None);
        };
        if self.options.refresh {
            return Ok(None);
        }
        let begun = self.phases.begin(Phase::Fetch);
        let found = self.ask(&*remote, key).await;
        self.phases.end(begun);
        found
    }

    async fn ask(
        &mut self,
        remote: &dyn RemoteCache,
        key: &str,
    ) -> Result<Option<(Hit, RemoteHit)>> {
        let keys = [key.to_owned()];
        let look = async { Ok(remote.look(&keys).await.pop().flatten()) };
        let Some(entry) = or_cancel(self.phases.cancel(), look).await? else {
            return Ok(None);
        };
        if !self.is_usable(remote, &entry).await? {
            return Ok(None);
        }
        let cancel = self.phases.cancel().cloned().unwrap_or_default();
        let progress = Progress::new();
        let fetch = remote.fetch(key, &cancel, &progress);
        let fetched = match self.phases.events() {
            Some(events) => watch(Phase::Fetch, fetch, &progress, &**events).await?,
            None => fetch.await?,
        };
        let Some(fetched) = fetched else {
            return Ok(None);
        };
        let guard = fetched.is_new.then(|| {
            let snapshot = fetched.entry.snapshot.clone();
            Unclaimed::new(snapshot, &self.engine.backend, &self.engine.registry)
        });
        // It may have changed between the two.
        let usable = fetched.entry == entry || self.is_usable(remote, &fetched.entry).await?;
        if !usable {
            if let Some(log) = fetched.log {
                drop(std::fs::remove_file(log.file));
            }
            return Ok(None);
        }
        self.enter_fetched(key, fetched, guard).await.map(Some)
    }

    /// Whether an entry is what this action would make.
    async fn is_usable(&mut self, remote: &dyn RemoteCache, entry: &RemoteEntry) -> Result<bool> {
        if self.passed_over.as_ref() == Some(&entry.snapshot)
            || !self.is_wanted(entry.created, entry.parent.as_ref())
        {
            return Ok(false);
        }
        let Some(base) = &entry.base else {
            return Ok(true);
        };
        let components = self.options.components.as_ref();
        let expected = match components.map(|components| &components.base) {
            Some(KeyBase::ImageDigest(digest)) => Some(digest.clone()),
            // The parent's key stands for the content.
            Some(KeyBase::ParentKey(_)) => None,
            // A key of the user's own says nothing of the image.
            Some(KeyBase::Snapshot(_)) | None => match &self.action.source {
                ImageSource::Image(image) => {
                    let digest = self.engine.backend.image_digest(image);
                    match or_cancel(self.phases.cancel(), digest).await {
                        Ok(digest) => digest,
                        // Whoever makes a VM of it says what is wrong.
                        Err(_) => {
                            self.phases.check()?;
                            return Ok(false);
                        }
                    }
                }
                ImageSource::Snapshot(source) => remote.base_digest(source).await,
            },
        };
        Ok(expected.is_none_or(|expected| expected == *base))
    }

    /// Enters a snapshot that was brought.
    async fn enter_fetched(
        &mut self,
        key: &str,
        fetched: Fetched,
        guard: Option<Unclaimed>,
    ) -> Result<(Hit, RemoteHit)> {
        let Fetched {
            entry,
            components,
            log,
            bytes,
            ..
        } = fetched;
        let output = match log {
            Some(log) => self.adopt_log(key, log).await?,
            None => None,
        };
        let log = output.as_ref().and_then(RecordedOutput::log);
        let hit = Hit {
            snapshot: entry.snapshot.clone(),
            output_bytes: output.as_ref().map_or(0, |output| output.bytes),
            created: entry.created,
            parent: entry.parent.clone(),
            cost: entry.cost,
            log: log.map(str::to_owned),
        };
        let details = PutDetails {
            // What the key derives from here counts.
            components: self.options.components.clone().or(components),
            output: output.map(StoredOutput),
            parent: entry.parent,
            cost: entry.cost,
            created: Some(entry.created),
        };
        self.enter_fetched_snapshot(key, &entry.snapshot, guard, details)
            .await?;
        Ok((hit, RemoteHit { bytes }))
    }

    /// Takes a log over. Without it the result is none the worse.
    async fn adopt_log(&mut self, key: &str, log: FetchedLog) -> Result<Option<RecordedOutput>> {
        let logs = self.engine.registry.logs().clone();
        let key = key.to_owned();
        let adopted = tokio::task::spawn_blocking(move || {
            let adopted = RecordedOutput::adopt(&logs, &key, &log.file, log.output_bytes);
            // It is collected with what crashed processes leave, if it cannot be removed.
            drop(std::fs::remove_file(&log.file));
            adopted
        })
        .await?;
        Ok(match adopted {
            Ok(output) => Some(output),
            Err(error) => {
                self.phases
                    .notice(|| format!("the output of this command cannot be stored: {error}"));
                None
            }
        })
    }

    /// What is to be shared of a result that is about to be entered.
    pub(super) fn to_share(
        &self,
        key: &str,
        snapshot: &SnapshotId,
        details: &PutDetails,
    ) -> Option<Published> {
        self.engine.remote.as_ref()?;
        let output = details.output.as_ref().map(|output| &output.0);
        let log = output.and_then(RecordedOutput::log);
        // Without its output it is a result nevertheless.
        let log = log.and_then(|log| self.engine.registry.logs().open(log).ok());
        Some(Published {
            key: key.to_owned(),
            entry: RemoteEntry {
                snapshot: snapshot.clone(),
                parent: details.parent.clone(),
                base: None,
                created: SystemTime::now(),
                cost: details.cost,
            },
            components: details.components.clone(),
            log: log.map(Arc::new),
            output_bytes: output.map_or(0, |output| output.bytes),
        })
    }

    /// Shares a result that was entered.
    pub(super) fn share(&self, shared: Option<Published>, entered: Option<&SnapshotId>) {
        if let (Some(remote), Some(shared), Some(_)) = (&self.engine.remote, shared, entered) {
            remote.publish(shared);
        }
    }
}
