//! Which snapshots the daemon has, without asking it each time.
//!
//! An answer is remembered as long as the daemon's stream of events says nothing else: every `untag` and `delete` of an image
//! arrives there, whoever does it. Until the stream is known to run (something has come from it; it begins with what the daemon
//! has kept of the last events), and when it breaks, nothing is remembered, and each question is a request. Podman's service is asked
//! always: its events are read from a file, late.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use hm_vm_core::SnapshotId;
use tokio::task::JoinHandle;

use crate::engine::{Engine, EngineKind};
use crate::objects::Identity;

/// Ids that are remembered, and removals that are. When there are more, all are forgotten.
const MOST_REMEMBERED: usize = 16 * 1024;
/// Time between two attempts to read events.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// Which snapshots of an owner a daemon has.
#[derive(Debug)]
pub(crate) struct Presence {
    engine: Engine,
    identity: Identity,
    known: Arc<Mutex<Known>>,
    /// Reads the events; begins with the first question.
    listener: Mutex<Option<JoinHandle<()>>>,
}

/// The moment before a request: its answer is worth nothing when a removal has been heard of since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

/// What is known now.
#[derive(Debug, Default)]
struct Known {
    /// Events arrive.
    listening: bool,
    ids: HashSet<String>,
    /// Counts removals and changes of `listening`.
    moment: u64,
    /// When an id was removed.
    removed: HashMap<String, u64>,
    /// What was asked before this counts for nothing.
    since: u64,
}

impl Known {
    fn forget_all(&mut self, listening: bool) {
        self.moment += 1;
        self.since = self.moment;
        self.listening = listening;
        self.ids.clear();
        self.removed.clear();
    }

    fn removed(&mut self, id: &str) {
        if self.removed.len() >= MOST_REMEMBERED {
            let listening = self.listening;
            self.forget_all(listening);
        }
        self.moment += 1;
        self.ids.remove(id);
        self.removed.insert(id.to_owned(), self.moment);
    }

    fn added(&mut self, id: &str, mark: Mark) {
        let removed = self.removed.get(id).copied().unwrap_or_default();
        if !self.listening || mark.0 < self.since || mark.0 < removed {
            return;
        }
        if self.ids.len() >= MOST_REMEMBERED {
            self.ids.clear();
        }
        self.ids.insert(id.to_owned());
    }
}

impl Presence {
    /// Knows nothing yet.
    pub(crate) fn new(engine: &Engine, identity: &Identity) -> Self {
        Self {
            engine: engine.clone(),
            identity: identity.clone(),
            known: Arc::default(),
            listener: Mutex::default(),
        }
    }

    /// Whether the snapshot can be restored. A request where that is not known.
    ///
    /// # Errors
    ///
    /// A failure of the daemon.
    pub(crate) async fn exists(&self, snapshot: &SnapshotId) -> Result<bool> {
        if !is_id(snapshot) {
            return Ok(false);
        }
        if lock(&self.known).ids.contains(snapshot.as_ref()) {
            return Ok(true);
        }
        self.listen();
        let mark = self.mark();
        let (engine, id) = (self.engine.clone(), snapshot.to_string());
        let found = self
            .engine
            .run(async move { crate::image::inspect(&engine, &id).await })
            .await?;
        let exists = found.is_some_and(|image| {
            let mut tags = image.tags.iter();
            image.id == snapshot.as_ref() && tags.any(|tag| self.identity.is_snapshot_tag(tag))
        });
        if exists {
            self.added(snapshot, mark);
        }
        Ok(exists)
    }

    /// Now, before a request.
    pub(crate) fn mark(&self) -> Mark {
        Mark(lock(&self.known).moment)
    }

    /// There is a snapshot, as a request says that was sent at `mark`.
    pub(crate) fn added(&self, id: &str, mark: Mark) {
        self.listen();
        lock(&self.known).added(id, mark);
    }

    /// A snapshot is being removed, or was.
    pub(crate) fn removed(&self, id: &str) {
        lock(&self.known).removed(id);
    }

    /// What is known of removals, for work that goes on without the backend.
    pub(crate) fn removals(&self) -> Removals {
        Removals(Arc::clone(&self.known))
    }

    fn listen(&self) {
        if self.engine.info().kind == EngineKind::Podman {
            return;
        }
        let mut listener = lock(&self.listener);
        if listener.is_none() {
            let (docker, known) = (self.engine.docker().clone(), Arc::clone(&self.known));
            *listener = self.engine.spawn(listen(docker, known)).ok();
        }
    }
}

/// What is known of removals.
#[derive(Clone, Debug)]
pub(crate) struct Removals(Arc<Mutex<Known>>);

impl Removals {
    /// Whether an image is known to have been removed, or to have lost a name.
    pub(crate) fn has(&self, id: &str) -> bool {
        lock(&self.0).removed.contains_key(id)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(listener) = lock(&self.listener).take() {
            listener.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads events until it is aborted.
async fn listen(docker: Docker, known: Arc<Mutex<Known>>) {
    let mut failures = 0;
    loop {
        if read_events(&docker, &known).await {
            failures = 0;
        }
        lock(&known).forget_all(false);
        tokio::time::sleep(PAUSES[failures.min(PAUSES.len() - 1)]).await;
        failures += 1;
    }
}

/// Reads events until the stream ends. Returns whether there was any.
async fn read_events(docker: &Docker, known: &Mutex<Known>) -> bool {
    // Beside what is needed, what happens all the time: the first event shows that events arrive.
    let kinds = ["untag", "delete", "tag", "create", "destroy"];
    let filters = HashMap::from([("event".to_owned(), kinds.map(str::to_owned).to_vec())]);
    let options = EventsOptionsBuilder::new()
        // All that the daemon has kept: nothing is lost between the answer's beginning and the subscription.
        .since("1")
        .filters(&filters)
        .build();
    let mut events = std::pin::pin!(docker.events(Some(options)));
    let mut any = false;
    while let Some(event) = events.next().await {
        let Ok(event) = event else { break };
        let mut known = lock(known);
        if !known.listening {
            known.forget_all(true);
            any = true;
        }
        if let Some(id) = taken(&event) {
            known.removed(id);
        }
    }
    any
}

/// The image that has lost a name, or is gone.
fn taken(event: &EventMessage) -> Option<&str> {
    let action = event.action.as_deref()?;
    let id = event.actor.as_ref()?.id.as_deref()?;
    matches!(action, "untag" | "delete").then_some(id)
}

/// Whether this can be the id of an image.
fn is_id(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digest| {
        digest.len() == 64
            && digest
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(known: &Known) -> Mark {
        Mark(known.moment)
    }

    #[test]
    fn an_answer_from_before_a_removal_counts_for_nothing() {
        let mut known = Known::default();
        known.added("a", mark(&known));
        assert!(known.ids.is_empty(), "nobody listens");
        let early = mark(&known);
        known.forget_all(true);
        known.added("a", early);
        assert!(known.ids.is_empty(), "asked before events arrived");
        let before = mark(&known);
        known.removed("a");
        known.added("a", before);
        known.added("b", before);
        assert_eq!(known.ids, HashSet::from(["b".to_owned()]));
        known.added("a", mark(&known));
        assert_eq!(known.ids.len(), 2);
        known.forget_all(false);
        assert!(known.ids.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Known::default();
        known.forget_all(true);
        let before = mark(&known);
        for number in 0..MOST_REMEMBERED * 2 {
            known.removed(&number.to_string());
            known.added(&format!("{number}x"), mark(&known));
        }
        assert!(known.removed.len() <= MOST_REMEMBERED);
        assert!(known.ids.len() <= MOST_REMEMBERED);
        known.added("0", before);
        assert!(!known.ids.contains("0"), "forgotten removals count");
    }

    #[test]
    fn malformed_ids_are_no_ids() {
        let digest = "0123456789abcdef".repeat(4);
        assert!(is_id(&format!("sha256:{digest}")));
        for bad in [
            digest.clone(),
            format!("sha512:{digest}"),
            format!("sha256:{digest}0"),
            format!("sha256:{}", digest.to_uppercase()),
            format!("sha256:{}/", &digest[1..]),
            String::new(),
        ] {
            assert!(!is_id(&bad), "{bad}");
        }
    }
}
