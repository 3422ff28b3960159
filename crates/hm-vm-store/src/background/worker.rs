//! The thread's loop.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::background::queue::{Batch, Job, Shared};
use crate::background::{durable, flatten, reap, sizes};
use crate::error::StoreError;
use crate::store::Core;

/// Size of the log in bytes at which it is moved into the database.
const LOG_LIMIT: u64 = 1 << 20;

pub(crate) fn run(core: &Arc<Core>, shared: &Shared) {
    while let Some(batch) = shared.next() {
        work(core, shared, batch);
    }
}

fn work(core: &Core, shared: &Shared, batch: Batch) {
    let stopped = || shared.stop().load(Ordering::Relaxed);
    let note = |result: Result<(), StoreError>| {
        if let Err(error) = result {
            shared.failed(error);
        }
    };
    if batch.doomed && !stopped() {
        note(reap::remove_doomed(core, shared.stop()));
    }
    for path in batch.trash {
        if !stopped() {
            note(reap::remove_trash(core, &path, shared.stop()));
        }
    }
    if batch.sync && !stopped() {
        note(durable::make_durable(core));
        if !stopped() {
            note(sizes::measure_all(core, shared.stop()));
        }
    }
    if !batch.flatten.is_empty() && !stopped() {
        // The sizes of what single commits added are lost with their layers.
        note(sizes::measure_all(core, shared.stop()));
    }
    for snapshot in batch.flatten {
        if !stopped() {
            match flatten::flatten_snapshot(core, snapshot, shared.stop()) {
                Ok(true) => shared.add(Job::Doomed),
                Ok(false) => {}
                Err(error) => shared.failed(error),
            }
        }
    }
    let log = std::fs::metadata(core.db.log_path()).map_or(0, |file| file.len());
    if log > LOG_LIMIT && !stopped() {
        note(core.db.checkpoint());
    }
}
