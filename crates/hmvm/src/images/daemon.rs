//! Pulling what a command needs into a daemon.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use hm_vm::docker::{DockerBackend, PullOptions, PullProgress, PulledImage};
use hm_vm::oci::{Digest, Reference};
use hm_vm::store::{TransferPart, TransferWatch};
use hm_vm::{Cancellation, Error, Progress, ProgressUnit, VmBackend as _};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::app::App;
use crate::failure::{Problem, contract};
use crate::output::sanitize::sanitize;
use crate::output::transfers;

/// Images that a daemon pulls at once; it pulls several layers of each at once.
const AT_ONCE: usize = 4;

/// An image to pull: its name, and what became of it.
pub(super) type Pulled = (String, anyhow::Result<PulledImage>);

/// The id of an image in the daemon; `None` when it does not have it.
///
/// # Errors
///
/// A failure of the daemon, or an image that no daemon can have.
pub(super) async fn image(daemon: &DockerBackend, name: &str) -> anyhow::Result<Option<String>> {
    if name == "host" {
        let message = format!(
            "{} has no image host: this machine's own root is the sandbox's",
            daemon.name()
        );
        return Err(Problem::new(message)
            .hint("name an image: --image debian:bookworm on the command line, image = \"debian:bookworm\" in a pipeline")
            .into());
    }
    match daemon.image_digest(name).await {
        Ok(digest) => Ok(digest),
        Err(error) if matches!(contract(&error), Some(Error::ImageNotFound { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a name may come to stand for another image.
pub(super) fn can_move(name: &str) -> bool {
    let reference = name.parse::<Reference>();
    !name.starts_with("sha256:") && reference.is_ok_and(|reference| reference.digest().is_none())
}

/// How long ago the image was pulled by this program; `None` when it was not.
pub(super) fn age(daemon: &DockerBackend, name: &str) -> Option<Duration> {
    let noted = fs::metadata(note(daemon, name)).ok()?.modified().ok()?;
    // A clock that went back makes nothing old.
    Some(SystemTime::now().duration_since(noted).unwrap_or_default())
}

fn note(daemon: &DockerBackend, name: &str) -> PathBuf {
    let digest = Digest::of(name.as_bytes()).hex();
    daemon.state_directory().join("pulled").join(digest)
}

/// That it is not noted when an image was pulled makes it older than it is.
fn note_pulled(daemon: &DockerBackend, name: &str) {
    let path = note(daemon, name);
    let noted = fs::create_dir_all(path.parent().unwrap_or(&path))
        .and_then(|()| File::create(&path)?.set_modified(SystemTime::now()));
    if let Err(error) = noted {
        tracing::debug!(%error, "when {name} was pulled is not noted");
    }
}

/// Pulls images, several at once, with a bar for each layer.
pub(super) async fn pull(
    app: &App,
    daemon: &DockerBackend,
    names: &[String],
    cancel: &Cancellation,
) -> anyhow::Result<Vec<Pulled>> {
    let (ui, daemon, cancel) = (app.ui.clone(), daemon.clone(), cancel.clone());
    let (names, handle) = (names.to_vec(), Handle::current());
    let pulled = tokio::task::spawn_blocking(move || {
        transfers::during(&ui, |transfers| {
            handle.block_on(all(&daemon, &names, &cancel, |name| transfers.watch(name)))
        })
    });
    pulled.await.context("pulling images")
}

async fn all(
    daemon: &DockerBackend,
    names: &[String],
    cancel: &Cancellation,
    watch: impl Fn(&str) -> Arc<dyn TransferWatch>,
) -> Vec<Pulled> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (place, name) in names.iter().enumerate() {
        let layers = Arc::new(Layers::of(watch(name)));
        let mut options = PullOptions::default();
        options.cancel = cancel.clone();
        let (daemon, name, turns) = (daemon.clone(), name.clone(), Arc::clone(&turns));
        tasks.spawn(async move {
            let _turn = turns.acquire_owned().await;
            let watch = move |progress: PullProgress| layers.tell(&progress);
            let pulled = daemon.pull(&name, &options, Arc::new(watch)).await;
            if pulled.is_ok() {
                note_pulled(&daemon, &name);
            }
            let pulled = pulled.with_context(|| format!("cannot pull image {}", sanitize(&name)));
            (place, (name, pulled))
        });
    }
    let mut done = tasks.join_all().await;
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, pulled)| pulled).collect()
}

/// The layers of one image that are on their way.
struct Layers {
    watch: Arc<dyn TransferWatch>,
    known: Mutex<BTreeMap<String, Layer>>,
}

struct Layer {
    progress: Progress,
    done: u64,
}

impl Layers {
    fn of(watch: Arc<dyn TransferWatch>) -> Self {
        Self {
            watch,
            known: Mutex::default(),
        }
    }

    /// Only what travels is shown: a daemon does not tell how large a layer is that it has.
    fn tell(&self, now: &PullProgress) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if now.state != "Downloading" {
            if let Some(layer) = known.get(&now.layer) {
                layer.progress.complete();
            }
            return;
        }
        let layer = known.entry(now.layer.clone()).or_insert_with(|| {
            let progress = self.watch.part(&TransferPart {
                label: format!("layer {}", now.layer),
                digest: None,
                bytes: now.total,
                present: false,
            });
            progress.begin(ProgressUnit::Bytes, now.total);
            Layer { progress, done: 0 }
        });
        layer.progress.add(now.done.saturating_sub(layer.done));
        layer.done = layer.done.max(now.done);
    }
}
