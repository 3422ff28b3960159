//! The thread's loop.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::background::queue::{Batch, Job, Shared};
use crate::background::{durable, flatten, reap, sizes};
use crate::error::StoreError;
use crate::store::Core;

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
        if !stopped() && !shared.is_closing() {
            note(sizes::measure_all(core, shared.stop()));
        }
    }
    for snapshot in batch.flatten {
        if !stopped() {
            note(flatten(core, shared, snapshot));
        }
    }
    if !stopped() && !shared.is_closing() {
        note(core.db.shrink_log());
    }
}

fn flatten(core: &Core, shared: &Shared, snapshot: i64) -> Result<(), StoreError> {
    if !flatten::is_due(core, snapshot)? {
        return Ok(());
    }
    // The sizes of what single commits added are lost with their layers.
    sizes::measure_all(core, shared.stop())?;
    if flatten::flatten_snapshot(core, snapshot, shared.stop())? {
        shared.add(Job::Doomed);
    }
    Ok(())
}
