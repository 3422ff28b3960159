//! Bringing the layers that are not here: several at once, each by one of all that need it.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hm_vm_core::{Cancellation, Progress};
use hm_vm_oci::{OciError, Source};

use super::id::ChainLayer;
use crate::db::stack::LayerKind;
use crate::error::StoreError;
use crate::layer_lock::LayerLock;
use crate::layers::{Held, LayerRequest};
use crate::store::{PendingLayer, Store};

/// Layers that are brought at once, at most.
const AT_ONCE: usize = 4;

/// Where layers come from, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) store: &'a Store,
    pub(super) source: &'a dyn Source,
    pub(super) cancel: &'a Cancellation,
    pub(super) progress: &'a Progress,
}

/// Layers that are here now.
pub(super) struct Brought {
    /// Their numbers, in the order of the wish.
    pub(super) layers: Vec<i64>,
    /// Bytes that came.
    pub(super) bytes: u64,
    /// What keeps them.
    pub(super) held: Held,
}

/// What one thread has done.
struct Done {
    held: Held,
    bytes: u64,
    result: Result<(), StoreError>,
}

/// Brings these layers.
pub(super) fn bring(wanted: &Wanted<'_>, layers: &[&ChainLayer]) -> Result<Brought, StoreError> {
    let (next, stop) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let numbers = Mutex::new(vec![0_i64; layers.len()]);
    let work = || {
        let mut done = Done {
            held: Held::new(wanted.store),
            bytes: 0,
            result: Ok(()),
        };
        while !stop.load(Ordering::Relaxed) {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(layer) = layers.get(place) else {
                break;
            };
            match bring_one(wanted, layer, &mut done, &stop) {
                Ok(number) => {
                    let mut numbers = numbers.lock().unwrap_or_else(PoisonError::into_inner);
                    numbers[place] = number;
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    done.result = Err(error);
                }
            }
        }
        done
    };
    let mut brought = Brought {
        layers: Vec::new(),
        bytes: 0,
        held: Held::new(wanted.store),
    };
    let mut failure = None;
    let done = std::thread::scope(|scope| {
        let others = layers.len().min(AT_ONCE).saturating_sub(1);
        // One that cannot be had is work for the others.
        let threads: Vec<_> = (0..others)
            .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut done = vec![work()];
        for thread in threads {
            match thread.join() {
                Ok(other) => done.push(other),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    for Done {
        held,
        bytes,
        result,
    } in done
    {
        brought.held.join(held);
        brought.bytes += bytes;
        // The first failure stopped the others, who say no more than that.
        if let Err(error) = result
            && !matches!(failure, Some(ref first) if !is_stopped(first))
        {
            failure = Some(error);
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    brought.layers = numbers.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(brought)
}

fn bring_one(
    wanted: &Wanted<'_>,
    layer: &ChainLayer,
    done: &mut Done,
    stop: &Arc<AtomicBool>,
) -> Result<i64, StoreError> {
    let core = wanted.store.core();
    let lock = LayerLock::take(&core.layout, &layer.diff_id, wanted.cancel)?;
    if let [Some(known)] = done.held.known(&[layer.diff_id])?[..] {
        wanted.progress.add(layer.blob.size);
        return Ok(known);
    }
    let pending = unpack(wanted, layer, stop)?;
    done.bytes += layer.blob.size;
    let number = done.held.publish(
        pending,
        LayerKind::Commit,
        &layer.diff_id,
        Some(&layer.blob),
    )?;
    drop(lock);
    Ok(number)
}

impl Wanted<'_> {
    /// Reads on, until cancelled.
    pub(super) fn watched<R: Read>(&self, input: R) -> Watched<R> {
        Watched {
            input,
            cancel: self.cancel.clone(),
            progress: Some(self.progress.clone()),
            stop: None,
        }
    }

    /// Why something could not be read.
    pub(super) fn failure(&self, error: io::Error) -> StoreError {
        if let Err(cancelled) = self.cancel.check() {
            return StoreError::Cancelled(cancelled);
        }
        match error.downcast::<OciError>() {
            Ok(error) => StoreError::Oci(error),
            Err(source) => StoreError::Oci(OciError::Io {
                doing: "reading",
                path: self.source.describe(),
                source,
            }),
        }
    }
}

/// Content on its way here.
pub(super) struct Watched<R> {
    input: R,
    cancel: Cancellation,
    progress: Option<Progress>,
    stop: Option<Arc<AtomicBool>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Err(error) = self.cancel.check() {
            return Err(io::Error::other(OciError::Cancelled(error)));
        }
        if self
            .stop
            .as_ref()
            .is_some_and(|stop| stop.load(Ordering::Relaxed))
        {
            return Err(io::Error::other(Stopped));
        }
        let count = self.input.read(buffer)?;
        if let Some(progress) = &self.progress {
            progress.add(count as u64);
        }
        Ok(count)
    }
}

/// Another layer has failed already.
#[derive(Debug, thiserror::Error)]
#[error("another layer could not be had")]
struct Stopped;

/// Whether somebody else's failure was the cause of this one.
fn is_stopped(error: &StoreError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if error.is::<Stopped>() || inner.is_some_and(|inner| inner.is::<Stopped>()) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Unpacks a layer as it comes.
fn unpack<'a>(
    wanted: &Wanted<'a>,
    layer: &ChainLayer,
    stop: &Arc<AtomicBool>,
) -> Result<PendingLayer<'a>, StoreError> {
    let input = Watched {
        stop: Some(Arc::clone(stop)),
        progress: None,
        ..wanted.watched(wanted.source.open(&layer.blob)?)
    };
    let request = LayerRequest {
        kind: LayerKind::Commit,
        root_entry: true,
        progress: wanted.progress.clone(),
        cancel: wanted.cancel.clone(),
        ..LayerRequest::new(layer.blob.clone(), Some(layer.diff_id))
    };
    let core = wanted.store.core();
    let unpacked = core.unpack_layer(Box::new(input), &request)?;
    // A commit never does: what is linked was copied up before.
    if !unpacked.needs_lower.is_empty() {
        return Err(StoreError::invalid(
            format!("layer {}", layer.diff_id),
            "it has hard links to files of layers below",
        ));
    }
    Ok(unpacked.pending)
}
