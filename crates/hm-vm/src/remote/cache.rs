//! A shared cache in a repository of a registry.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use hm_vm_core::{Cancellation, Progress, SnapshotId};
use hm_vm_oci::{Reference, RegistryClient, Verified};
use hm_vm_store::Store;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::fetch::fetch;
use super::health::{Failure, Health};
use super::options::{CacheMode, OciCacheOptions};
use super::port::{Fetched, Published, RemoteCache, RemoteEntry, RemoteReport};
use super::queue::Queue;
use super::record::{Found, Record, manifest, tag};
use super::repository::CacheRepository;

/// How long an answer is remembered: that there is nothing, and that there is something.
const NOTHING_AGE: Duration = Duration::from_secs(20);
const FOUND_AGE: Duration = Duration::from_secs(300);

/// A cache shared with other machines that lies in a repository of a registry: one artifact for each key, at a tag
/// made of it.
///
/// What it says is checked before it is used, and what it sends is checked while it comes. Only results whose image is
/// here as well can be used. Where the key has another result there already, the newer one stays.
#[derive(Debug)]
pub struct OciCache {
    shared: Arc<Shared>,
    queue: Queue,
    lookups: Arc<Semaphore>,
}

/// What threads need.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) repository: Arc<dyn CacheRepository>,
    pub(super) options: OciCacheOptions,
    /// Of asking and fetching.
    pub(super) reading: Health,
    /// Of publishing.
    pub(super) writing: Health,
    answers: Mutex<HashMap<String, Answer>>,
}

/// What was answered about a key.
#[derive(Clone, Debug)]
struct Answer {
    at: Instant,
    found: Option<Arc<Found>>,
}

impl OciCache {
    /// A cache in that repository, for results of this store. Connects to nobody yet. Tag and digest of the
    /// reference are of no account.
    pub fn new(
        store: Store,
        client: &RegistryClient,
        repository: &Reference,
        options: OciCacheOptions,
    ) -> Self {
        Self::in_repository(store, Arc::new(client.repository(repository)), options)
    }

    /// A cache in another kind of place.
    pub fn in_repository(
        store: Store,
        repository: Arc<dyn CacheRepository>,
        options: OciCacheOptions,
    ) -> Self {
        let place = repository.describe();
        let lookups = Arc::new(Semaphore::new(options.lookups_at_once.max(1)));
        let shared = Arc::new(Shared {
            reading: Health::new("asked", &place, &options),
            writing: Health::new("given results", &place, &options),
            answers: Mutex::default(),
            store,
            repository,
            options,
        });
        Self {
            queue: Queue::new(&shared),
            shared,
            lookups,
        }
    }

    /// What the cache has for a key, from memory or by asking.
    async fn found(&self, key: &str) -> Option<Arc<Found>> {
        ask(&self.shared, &self.lookups, key).await
    }
}

#[async_trait]
impl RemoteCache for OciCache {
    async fn look(&self, keys: &[String]) -> Vec<Option<RemoteEntry>> {
        let entry = |found: Option<Arc<Found>>| found.map(|found| found.entry.clone());
        if let [key] = keys {
            return vec![entry(self.found(key).await)];
        }
        let mut entries = vec![None; keys.len()];
        let mut tasks = JoinSet::new();
        for (place, key) in keys.iter().enumerate() {
            match self.shared.remembered(key) {
                Some(found) => entries[place] = entry(found),
                None => {
                    let (shared, lookups) = (Arc::clone(&self.shared), Arc::clone(&self.lookups));
                    let key = key.clone();
                    tasks.spawn(async move { (place, ask(&shared, &lookups, &key).await) });
                }
            }
        }
        while let Some(done) = tasks.join_next().await {
            if let Ok((place, found)) = done {
                entries[place] = entry(found);
            }
        }
        entries
    }

    async fn fetch(
        &self,
        key: &str,
        cancel: &Cancellation,
        progress: &Progress,
    ) -> Result<Option<Fetched>> {
        cancel.check()?;
        let Some(found) = self.found(key).await else {
            return Ok(None);
        };
        fetch(&self.shared, key, found, cancel, progress).await
    }

    async fn base_digest(&self, snapshot: &SnapshotId) -> Option<String> {
        let (store, snapshot) = (self.shared.store.clone(), snapshot.clone());
        let looked = tokio::task::spawn_blocking(move || store.snapshot_base(&snapshot)).await;
        looked.ok().and_then(Result::ok).flatten()
    }

    fn publish(&self, result: Published) {
        if self.shared.options.mode == CacheMode::ReadWrite {
            self.queue.add(&self.shared, result);
        }
    }

    async fn finish(&self, limit: Duration) -> RemoteReport {
        self.queue.finish(limit).await
    }
}

/// Asks about a key, unless the answer is remembered.
async fn ask(shared: &Arc<Shared>, lookups: &Arc<Semaphore>, key: &str) -> Option<Arc<Found>> {
    if let Some(found) = shared.remembered(key) {
        return found;
    }
    let permit = Arc::clone(lookups).acquire_owned().await.ok()?;
    if shared.reading.is_off() {
        return None;
    }
    let (at, limit) = (Instant::now(), shared.options.lookup_time);
    let asked = {
        let (shared, key) = (Arc::clone(shared), key.to_owned());
        // The permit goes with the work: what hangs counts as well.
        tokio::task::spawn_blocking(move || {
            let found = shared.look_up(&key);
            drop(permit);
            found
        })
    };
    let found = match tokio::time::timeout(limit, asked).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) => return None,
        Err(_) => Err(Failure::Slow(limit)),
    };
    match found {
        Ok(found) => {
            shared.reading.fine();
            let found = found.map(Arc::new);
            shared.remember(key, found.clone());
            found
        }
        Err(failure) => {
            shared.reading.failed(&failure, at.elapsed());
            shared.remember(key, None);
            None
        }
    }
}

impl Shared {
    /// Asks the repository about a key. Blocks the thread.
    pub(super) fn look_up(&self, key: &str) -> Result<Option<Found>, Failure> {
        let tag = tag(key);
        let Some(raw) = self.repository.manifest(&tag)? else {
            return Ok(None);
        };
        let manifest = manifest(&raw, &tag)?;
        let mut bytes = Vec::new();
        let input = self.repository.source().open(&manifest.config)?;
        Verified::new(input, &manifest.config)
            .read_to_end(&mut bytes)
            .map_err(read_failure)?;
        Record::parse(&bytes, &tag)?
            .map(|record| record.check(key, &manifest))
            .transpose()
    }

    /// The answer of a moment ago: `None` when there was none.
    fn remembered(&self, key: &str) -> Option<Option<Arc<Found>>> {
        let answers = self.answers();
        let answer = answers.get(key)?;
        let age = match answer.found {
            Some(_) => FOUND_AGE,
            None => NOTHING_AGE,
        };
        (answer.at.elapsed() < age).then(|| answer.found.clone())
    }

    fn remember(&self, key: &str, found: Option<Arc<Found>>) {
        let at = Instant::now();
        self.answers().insert(key.to_owned(), Answer { at, found });
    }

    /// Forgets an answer: it is not right any more, or of no use.
    pub(super) fn forget(&self, key: &str) {
        self.answers().remove(key);
    }

    /// Remembers that what is there cannot be used.
    pub(super) fn spurn(&self, key: &str) {
        self.remember(key, None);
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a blob could not be read.
pub(super) fn read_failure(error: std::io::Error) -> Failure {
    match error.downcast::<hm_vm_oci::OciError>() {
        Ok(error) => Failure::Oci(error),
        Err(source) => Failure::Io {
            doing: "reading from the shared cache",
            source,
        },
    }
}
