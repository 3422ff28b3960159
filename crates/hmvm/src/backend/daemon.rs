//! Docker and Podman: opening them, and those that this store has used.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hm_vm::SnapshotId;
use hm_vm::docker::{
    Candidate, DockerBackend, DockerOptions, Endpoint, EndpointSearch, EngineKind, PullPolicy,
};
use hm_vm::store::Store;

use super::keeper::Keeper;
use super::opened::Looked;
use crate::app::App;
use crate::failure::Report;

/// Files beside the store's own, of the owner of all things in daemons.
pub(crate) fn state(store: &Path) -> PathBuf {
    store.join("docker")
}

/// In the directory of a daemon: where it listens.
const ENDPOINT: &str = "endpoint";

/// Opens a daemon of one kind, where `docker` or `podman` would find it.
///
/// # Errors
///
/// [`BackendUnavailable`](hm_vm::Error::BackendUnavailable) when there is none.
pub(crate) fn open(app: &App, store: &Store, kind: EngineKind) -> anyhow::Result<DockerBackend> {
    let search = EndpointSearch::from_environment().only(kind);
    // To find one, each is asked who it is, and asked once more when it is opened. Where the first one that can be there
    // is the right one, as nearly always, the first question is spared.
    let likely = search
        .candidates()
        .into_iter()
        .find(|candidate| candidate.is_final || is_there(candidate));
    if let Some(Ok(endpoint)) = likely.map(|candidate| candidate.endpoint)
        && let Ok(daemon) = open_at(app, store, endpoint)
        && daemon.engine().kind == kind
    {
        return Ok(daemon);
    }
    open_at(app, store, search.find()?)
}

fn is_there(candidate: &Candidate) -> bool {
    match &candidate.endpoint {
        Ok(Endpoint::Unix(socket)) => socket.exists(),
        Ok(_) => true,
        Err(_) => false,
    }
}

/// Opens the daemon that listens there.
///
/// # Errors
///
/// [`BackendUnavailable`](hm_vm::Error::BackendUnavailable) when it does not answer.
pub(crate) fn open_at(
    app: &App,
    store: &Store,
    endpoint: Endpoint,
) -> anyhow::Result<DockerBackend> {
    let mut options = DockerOptions::default();
    let listens = endpoint.clone();
    options.endpoint = Some(endpoint);
    options.state = Some(state(store.root()));
    // The program pulls by itself: with bars, and as its options say.
    options.pull = PullPolicy::Never;
    options.credentials = Some(app.environment.credentials.clone());
    let backend = DockerBackend::open(options)?;
    note(&backend, &listens)?;
    Ok(backend)
}

/// Writes down where a daemon listens, so that what is in it can be found when the environment names another one.
fn note(backend: &DockerBackend, endpoint: &Endpoint) -> anyhow::Result<()> {
    let Endpoint::Unix(socket) = endpoint else {
        // Its certificates may be anywhere: the environment has to name it.
        return Ok(());
    };
    let Some(socket) = socket.to_str() else {
        return Ok(());
    };
    let path = backend.state_directory().join(ENDPOINT);
    let line = format!("{socket}\n");
    if fs::read_to_string(&path).is_ok_and(|text| text == line) {
        return Ok(());
    }
    fs::write(&path, line).with_context(|| format!("writing {}", path.display()))
}

/// Waits for what a daemon does, outside of any runtime.
///
/// # Errors
///
/// No runtime can be had.
pub(crate) fn wait<F: Future>(work: F) -> anyhow::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    Ok(runtime.block_on(work))
}

/// Removes what killed programs left in the daemons that this store has used, and in the one that is looked at. Returns how
/// many things that were. One that does not answer is passed over.
///
/// # Errors
///
/// The store's directory cannot be read.
pub(crate) fn collect_leftovers(app: &App, looked: &Looked) -> anyhow::Result<u64> {
    let mut removed = 0;
    for endpoint in used(looked.store.root())? {
        let place = endpoint.to_string();
        let collected =
            open_at(app, &looked.store, endpoint).and_then(|daemon| daemon.collect_leftovers());
        match collected {
            Ok(count) => removed += count,
            Err(error) => {
                let told = Report::of(&error).message.unwrap_or_default();
                app.ui
                    .notice(&format!("what is left over in {place} stays: {told}"));
            }
        }
    }
    Ok(removed)
}

/// What killed programs left in the daemons that this store has used, in words. One that does not answer is passed over: it
/// need not run for the others to be healthy.
///
/// # Errors
///
/// The store cannot be opened, or its directory not be read.
pub(crate) fn leftovers(app: &App) -> anyhow::Result<Vec<String>> {
    let endpoints = used(&app.store_root()?)?;
    if endpoints.is_empty() {
        return Ok(Vec::new());
    }
    let store = app.store()?;
    let mut found = Vec::new();
    for endpoint in endpoints {
        let place = endpoint.to_string();
        match open_at(app, &store, endpoint).and_then(|daemon| daemon.leftovers()) {
            Ok(list) => found.extend(list.into_iter().map(|what| format!("{place}: {what}"))),
            Err(error) => {
                tracing::debug!(place, error = %format!("{error:#}"), "not looked for left-overs");
            }
        }
    }
    Ok(found)
}

/// Another backend of this store that has a snapshot of this id, or with this beginning of one. What cannot be asked counts
/// as having nothing: this is for a hint.
pub(crate) fn other_keeper(app: &App, keeper: &Keeper, text: &str) -> Option<Keeper> {
    let root = app.store_root().ok()?;
    if let Keeper::Daemon(_) = keeper {
        let store = Keeper::Store(app.store().ok()?);
        if store.resolve(text).is_ok() {
            return Some(store);
        }
    }
    let store = app.store().ok()?;
    let daemons = used(&root).ok()?.into_iter();
    let mut daemons = daemons.filter_map(|endpoint| open_at(app, &store, endpoint).ok());
    let found = daemons.find(|daemon| Keeper::Daemon(daemon.clone()).resolve(text).is_ok());
    found
        .map(Keeper::Daemon)
        .filter(|found| found.name() != keeper.name())
}

/// Removes snapshots that the record of runs names, whichever backend keeps them. What is in a daemon that does not
/// answer is left to its collection by age.
///
/// # Errors
///
/// A failure of the store.
pub(crate) fn remove_everywhere<'a>(
    app: &App,
    snapshots: impl IntoIterator<Item = &'a SnapshotId>,
) -> anyhow::Result<()> {
    let mut snapshots = snapshots.into_iter().peekable();
    if snapshots.peek().is_none() {
        return Ok(());
    }
    let store = app.store()?;
    let kept_here = Keeper::Store(store.clone());
    let (here, there): (Vec<_>, Vec<_>) = snapshots.partition(|id| kept_here.may_have(id));
    for snapshot in here {
        store.remove_snapshot(snapshot)?;
    }
    if there.is_empty() {
        return Ok(());
    }
    for endpoint in used(store.root())? {
        let place = endpoint.to_string();
        let removed = open_at(app, &store, endpoint).and_then(|daemon| {
            let keeper = Keeper::Daemon(daemon);
            there
                .iter()
                .try_for_each(|snapshot| keeper.remove(snapshot))
        });
        if let Err(error) = removed {
            tracing::warn!(place, error = %format!("{error:#}"), "the state of an earlier failure was not removed");
        }
    }
    Ok(())
}

/// Where the daemons listen in which this store has, or had, something. None where no daemon was ever used.
///
/// # Errors
///
/// The store's directory cannot be read.
pub(crate) fn used(store: &Path) -> anyhow::Result<Vec<Endpoint>> {
    let directory = state(store);
    let reading = || format!("reading {}", directory.display());
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(reading)?,
    };
    let mut sockets = BTreeSet::new();
    for entry in entries {
        let place = entry.with_context(reading)?.path().join(ENDPOINT);
        if let Ok(text) = fs::read_to_string(&place) {
            sockets.insert(PathBuf::from(text.trim_end_matches('\n')));
        }
    }
    Ok(sockets.into_iter().map(Endpoint::Unix).collect())
}
