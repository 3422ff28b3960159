//! Bringing the layers that are not here: several at once, each by one of all that need it.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hm_vm_core::{Cancellation, Progress, ProgressUnit};
use hm_vm_oci::{Digest, OciError, Source};

use super::count::{Count, count};
use super::{ImageLayer, PullOptions};
use crate::db::stack::LayerKind;
use crate::error::{Context, StoreError};
use crate::import::LowerLink;
use crate::layer_lock::LayerLock;
use crate::layers::{Held, LayerRequest, OWN_LAYER};
use crate::store::{PendingLayer, Store};
use crate::transfer::TransferPart;

/// Layers that are brought at once. Each takes about 16 MiB of memory, and two threads.
const AT_ONCE: usize = 3;

/// A layer that is here.
#[derive(Debug)]
pub(super) enum Brought<'a> {
    /// Visible, and held.
    Shared(i64),
    /// It has links into lower layers, which are to be made.
    Unlinked(PendingLayer<'a>, Vec<LowerLink>),
}

impl Brought<'_> {
    pub(super) fn layer(&self) -> i64 {
        match self {
            Self::Shared(layer) => *layer,
            Self::Unlinked(pending, _) => pending.layer(),
        }
    }
}

/// All layers of an image.
pub(super) struct Layers<'a> {
    /// Bottom first.
    pub(super) layers: Vec<Brought<'a>>,
    /// Of all of them.
    pub(super) size: Count,
    pub(super) notices: Vec<String>,
    /// Keeps them.
    pub(super) held: Held,
}

/// What one pull works with.
#[derive(Clone, Copy)]
pub(super) struct Pull<'a> {
    pub(super) store: &'a Store,
    pub(super) source: &'a dyn Source,
    pub(super) options: &'a PullOptions,
}

/// One layer to be brought.
struct Job<'b> {
    /// Its place among all.
    place: usize,
    layer: &'b ImageLayer,
    progress: Progress,
}

/// What the threads have together.
struct Shared<'a, 'b> {
    pull: Pull<'a>,
    jobs: Vec<Job<'b>>,
    next: AtomicUsize,
    stop: Arc<AtomicBool>,
    done: Mutex<Done<'a>>,
}

struct Done<'a> {
    layers: Vec<Option<Brought<'a>>>,
    size: Count,
    notices: Vec<String>,
    failure: Option<StoreError>,
}

impl<'a> Pull<'a> {
    /// Brings these layers, which are all different ones.
    pub(super) fn bring(self, layers: &[&ImageLayer]) -> Result<Layers<'a>, StoreError> {
        let mut held = Held::new(self.store);
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
        let known = held.known(&diff_ids)?;
        let mut done = Done {
            layers: Vec::new(),
            size: Count::default(),
            notices: Vec::new(),
            failure: None,
        };
        let mut jobs = Vec::new();
        for (place, (&layer, known)) in layers.iter().zip(known).enumerate() {
            let progress = self.announce(layer, place, layers.len(), known.is_some());
            match known {
                Some(number) => done.add_size(self.count(number)?, self.options)?,
                None => jobs.push(Job {
                    place,
                    layer,
                    progress,
                }),
            }
            done.layers.push(known.map(Brought::Shared));
        }
        // The longest first, so that none is left to run alone at the end.
        jobs.sort_by_key(|job| std::cmp::Reverse(job.layer.blob.size));
        let threads = jobs.len().min(AT_ONCE);
        let shared = Shared {
            pull: self,
            jobs,
            next: AtomicUsize::new(0),
            stop: Arc::default(),
            done: Mutex::new(done),
        };
        let work = || shared.work();
        std::thread::scope(|scope| {
            // One that cannot be had is work for the others.
            let others: Vec<_> = (1..threads)
                .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
                .collect();
            held.join(work());
            for other in others {
                match other.join() {
                    Ok(other) => held.join(other),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        let done = shared
            .done
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = done.failure {
            return Err(failure);
        }
        Ok(Layers {
            layers: done.layers.into_iter().flatten().collect(),
            size: done.size,
            notices: done.notices,
            held,
        })
    }

    /// Tells who watches of a layer.
    fn announce(self, layer: &ImageLayer, place: usize, of: usize, present: bool) -> Progress {
        let progress = self.options.watch.part(&TransferPart {
            label: format!("layer {}/{of}", place + 1),
            digest: Some(layer.blob.digest),
            bytes: Some(layer.blob.size),
            present,
        });
        progress.begin(ProgressUnit::Bytes, Some(layer.blob.size));
        if present {
            progress.complete();
        }
        progress
    }

    fn count(self, layer: i64) -> Result<Count, StoreError> {
        let core = self.store.core();
        let tree = core.layout.layer_tree(layer);
        core.files.run(|| count(&tree))?.context("reading", &tree)
    }
}

impl<'a> Shared<'a, '_> {
    /// What each thread does. Returns what holds the layers that it brought.
    fn work(&self) -> Held {
        let mut held = Held::new(self.pull.store);
        while !self.stop.load(Ordering::Relaxed) {
            let Some(job) = self.jobs.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            let brought = self.bring_one(job, &mut held);
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            let added = brought.and_then(|(brought, size, notices)| {
                done.layers[job.place] = Some(brought);
                done.notices.extend(notices);
                done.add_size(size, self.pull.options)
            });
            match added {
                Ok(()) => job.progress.complete(),
                Err(failure) => {
                    // The first failure stops the others, who have nothing to say but that.
                    if !self.stop.swap(true, Ordering::Relaxed) {
                        done.failure = Some(failure);
                    }
                }
            }
        }
        held
    }

    fn bring_one(
        &self,
        job: &Job<'_>,
        held: &mut Held,
    ) -> Result<(Brought<'a>, Count, Vec<String>), StoreError> {
        let Pull {
            store,
            source,
            options,
        } = self.pull;
        let core = store.core();
        let layer = job.layer;
        let _lock = LayerLock::take(&core.layout, &layer.diff_id, &options.cancel)?;
        if let [Some(number)] = held.known(&[layer.diff_id])?[..] {
            let count = self.pull.count(number)?;
            return Ok((Brought::Shared(number), count, Vec::new()));
        }
        let request = LayerRequest {
            root_entry: layer.blob.annotations.contains_key(OWN_LAYER),
            limits: options.limits,
            progress: job.progress.clone(),
            cancel: options.cancel.clone(),
            ..LayerRequest::new(layer.blob.clone(), Some(layer.diff_id))
        };
        let input = Box::new(Stoppable {
            input: source.open(&layer.blob)?,
            cancel: options.cancel.clone(),
            stop: Arc::clone(&self.stop),
        });
        let unpacked = core.unpack_layer(input, &request)?;
        let size = Count {
            bytes: unpacked.bytes,
            entries: unpacked.entries,
        };
        let brought = if unpacked.needs_lower.is_empty() {
            Brought::Shared(held.publish(
                unpacked.pending,
                LayerKind::Image,
                &layer.diff_id,
                layer.known_blob().as_ref(),
            )?)
        } else {
            Brought::Unlinked(unpacked.pending, unpacked.needs_lower)
        };
        Ok((brought, size, unpacked.notices))
    }
}

impl Done<'_> {
    fn add_size(&mut self, size: Count, options: &PullOptions) -> Result<(), StoreError> {
        self.size.bytes = self.size.bytes.saturating_add(size.bytes);
        self.size.entries = self.size.entries.saturating_add(size.entries);
        let limits = options.limits;
        let (limit, unit) = if self.size.bytes > limits.bytes {
            (limits.bytes, "bytes")
        } else if self.size.entries > limits.entries {
            (limits.entries, "entries")
        } else {
            return Ok(());
        };
        Err(crate::import::ImportError::LimitExceeded { limit, unit }.into())
    }
}

/// Content on its way here, until somebody wants an end.
struct Stoppable {
    input: Box<dyn Read + Send>,
    cancel: Cancellation,
    stop: Arc<AtomicBool>,
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Err(error) = self.cancel.check() {
            return Err(io::Error::other(OciError::Cancelled(error)));
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer could not be had"));
        }
        self.input.read(buffer)
    }
}
