//! Keeping chains short.
//!
//! overlayfs takes 500 layers at most, and gets slower long before. When the newest layers of a
//! chain, or others next to each other, are [`RUN`] of one level, they are merged into one of the
//! next level, like the numbers of a log-structured merge tree: a chain of a thousand snapshots
//! has some twenty layers. A merged layer is known by what was merged into it, so that snapshots
//! of one lineage share it. The image's own layers are never merged.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::background::durable;
use crate::db::Failure;
use crate::db::stack::{self, LayerKind, Stack};
use crate::error::{Context, StoreError};
use crate::store::{Core, PendingLayer};
use crate::tree::merge::merge;

/// How many layers of one level are merged into one of the next.
pub(crate) const RUN: usize = 8;
/// From this number of layers a VM does not wait for the background to merge them.
pub(crate) const HARD_LIMIT: usize = 48;

/// Layers next to each other that are to become one.
struct Run {
    /// Index of the lowest.
    start: usize,
    level: i64,
}

/// A merged layer.
enum Merged<'a> {
    /// One that is there, if it still is.
    Known(i64),
    /// One that is in place, but not visible yet.
    Made(PendingLayer<'a>, String),
}

/// Merges what is to be merged in a snapshot's chain. Returns whether any layer was doomed.
pub(crate) fn flatten_snapshot(
    core: &Core,
    snapshot: i64,
    stop: &AtomicBool,
) -> Result<bool, StoreError> {
    let mut doomed = false;
    while let Some((lease, stack, run)) = lease_chain(core, snapshot)? {
        let merged = merged_layer(core, &stack, &run, stop);
        let stopped = matches!(merged, Ok(None));
        let (merged, failure) = match merged {
            Ok(merged) => (merged, None),
            Err(error) => (None, Some(error)),
        };
        doomed |= core.db.write("putting a merged layer in", |tx| {
            tx.prepare_cached("DELETE FROM leases WHERE id = ?1")?
                .execute([lease])?;
            if let Some(merged) = &merged {
                put_in(tx, core, &stack, &run, merged)?;
            }
            Ok(stack::release(tx, stack.id, core.session.id)?)
        })?;
        if let Some(Merged::Made(pending, _)) = merged {
            pending.published();
        }
        if let Some(error) = failure {
            return Err(error);
        }
        if stopped {
            break;
        }
    }
    Ok(doomed)
}

/// Whether something in the chain of a snapshot is to be merged.
pub(crate) fn is_due(core: &Core, snapshot: i64) -> Result<bool, StoreError> {
    core.db.read_state("looking at a chain", |connection| {
        Ok(chain(connection, snapshot)?.is_some())
    })
}

fn chain(connection: &Connection, snapshot: i64) -> rusqlite::Result<Option<(Stack, Run)>> {
    let stack: Option<i64> = connection
        .prepare_cached("SELECT stack FROM snapshots WHERE id = ?1")?
        .query_row([snapshot], |row| row.get(0))
        .optional()?;
    let Some(stack) = stack else { return Ok(None) };
    let Some(stack) = stack::load(connection, stack)? else {
        return Ok(None);
    };
    let run = find_run(&levels(connection, &stack)?, stack.base);
    Ok(run.map(|run| (stack, run)))
}

/// Holds the chain of a snapshot, if something in it is to be merged.
fn lease_chain(core: &Core, snapshot: i64) -> Result<Option<(i64, Stack, Run)>, StoreError> {
    core.db.write("leasing a chain", |tx| {
        let Some((stack, run)) = chain(tx, snapshot)? else {
            return Ok(None);
        };
        tx.prepare_cached("INSERT INTO leases (session, stack) VALUES (?1, ?2)")?
            .execute([core.session.id, stack.id])?;
        Ok(Some((tx.last_insert_rowid(), stack, run)))
    })
}

/// Puts a merged layer in the place of its run, for every snapshot on the same stack.
fn put_in(
    tx: &Transaction<'_>,
    core: &Core,
    old: &Stack,
    run: &Run,
    merged: &Merged<'_>,
) -> Result<(), Failure> {
    let layer = match merged {
        Merged::Known(layer) => {
            let there: bool = tx
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM layers WHERE id = ?1 AND state = 1)")?
                .query_row([layer], |row| row.get(0))?;
            if !there {
                return Ok(());
            }
            *layer
        }
        Merged::Made(pending, sources) => {
            stack::publish_layer(tx, pending.layer(), LayerKind::Merged)?;
            tx.prepare_cached(
                "UPDATE layers SET level = ?2, merged = ?3, durable = 1 WHERE id = ?1",
            )?
            .execute(params![pending.layer(), run.level + 1, sources])?;
            pending.layer()
        }
    };
    let mut layers = old.layers.clone();
    layers.splice(run.start..run.start + RUN, [layer]);
    let new = stack::create(tx, layers, old.host, old.base, Some(old.id))?;
    tx.prepare_cached("UPDATE snapshots SET stack = ?2 WHERE stack = ?1")?
        .execute([old.id, new.id])?;
    // Where the snapshot is gone meanwhile, so is the new stack, with its layer.
    stack::release(tx, new.id, core.session.id)?;
    Ok(())
}

fn levels(connection: &Connection, stack: &Stack) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare_cached(
            "SELECT level FROM stack_layers JOIN layers ON layers.id = layer
             WHERE stack = ?1 ORDER BY position",
        )?
        .query_map([stack.id], |row| row.get(0))?
        .collect()
}

/// The lowest run of layers of one level. The lowest, so that all snapshots of a lineage merge the
/// same ones.
fn find_run(levels: &[i64], base: usize) -> Option<Run> {
    levels
        .windows(RUN)
        .enumerate()
        .skip(base)
        .find(|(_, window)| window.iter().all(|level| *level == window[0]))
        .map(|(start, window)| Run {
            start,
            level: window[0],
        })
}

/// The layer that the run is merged into, made where it does not exist. `None` when stopped.
fn merged_layer<'a>(
    core: &'a Core,
    stack: &Stack,
    run: &Run,
    stop: &AtomicBool,
) -> Result<Option<Merged<'a>>, StoreError> {
    let sources = &stack.layers[run.start..run.start + RUN];
    let names: Vec<String> = sources.iter().map(i64::to_string).collect();
    let names = names.join(",");
    let known: Option<i64> = core.db.read("looking for a merged layer", |connection| {
        Ok(connection
            .prepare_cached("SELECT id FROM layers WHERE merged = ?1 AND state = 1")?
            .query_row([&names], |row| row.get(0))
            .optional()?)
    })?;
    if let Some(layer) = known {
        return Ok(Some(Merged::Known(layer)));
    }
    let tree = core.new_tree()?;
    let paths: Vec<PathBuf> = sources
        .iter()
        .rev()
        .map(|&layer| core.layout.layer_tree(layer))
        .collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let whole = core
        .files
        .run(|| merge(&paths, tree.path(), stop))?
        .context("merging layers into", tree.path())?;
    if !whole {
        return Ok(None);
    }
    let pending = core.adopt(tree, LayerKind::Merged)?;
    // Durable snapshots are going to stand on it.
    durable::sync_files(core)?;
    Ok(Some(Merged::Made(pending, names)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_commits_need_few_layers() {
        let base = 1;
        let mut levels = vec![0];
        let mut most = 0;
        for _ in 0..1000 {
            levels.push(0);
            while let Some(run) = find_run(&levels, base) {
                levels.splice(run.start..run.start + RUN, [run.level + 1]);
            }
            most = most.max(levels.len());
        }
        assert!(most <= 24, "{most} layers");
    }

    #[test]
    fn the_image_is_left_alone() {
        assert!(find_run(&[0; 8], 1).is_none());
        assert_eq!(find_run(&[0; 9], 1).map(|run| run.start), Some(1));
    }
}
