//! What the store holds, what of it nothing uses, and what is left over.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::background::Job;
use crate::caches::note_damaged;
use crate::db::stack;
use crate::error::StoreError;
use crate::layer_lock::LayerLock;
use crate::session::{is_alive, others};
use crate::store::Store;
use crate::store::recovery::{names, numbers};
use crate::vm::inject::forget_old_injects;

/// What the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Number of snapshots.
    pub snapshots: u64,
    /// Number of images.
    pub images: u64,
    /// Number of VMs, of all processes.
    pub vms: u64,
    /// Number of layers.
    pub layers: u64,
    /// Number of layers that nothing uses: inject layers kept for the next run.
    pub unused_layers: u64,
    /// Bytes on disk of all measured layers. Files that several layers share by hard links count
    /// once for each, so that the true figure is at most `shared_bytes` smaller.
    pub bytes: u64,
    /// The part of `bytes` in files that have names in several layers.
    pub shared_bytes: u64,
    /// Bytes on disk that collection of the unused layers would free.
    pub unused_bytes: u64,
    /// Number of layers that are not measured yet.
    pub unmeasured_layers: u64,
    /// Number of cache directories.
    pub caches: u64,
    /// Bytes on disk of the cache directories. Not part of `bytes`.
    pub cache_bytes: u64,
}

/// What a collection freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Number of layers.
    pub layers: u64,
    /// Their bytes on disk, as far as measured and not shared with other layers.
    pub bytes: u64,
}

/// Something that should not be there: for people who look for leaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub what: &'static str,
    /// Where it is, or should be.
    pub path: PathBuf,
}

impl Store {
    /// Counts what the store holds. Cache directories are measured for it, which takes a look at every
    /// file of theirs.
    ///
    /// # Errors
    ///
    /// A failure of the database, or to read a cache directory.
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let (caches, cache_bytes) = self.measure_caches()?;
        self.core().db.read_state("counting", |connection| {
            let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0));
            let unused = "state = 1 AND NOT EXISTS
                (SELECT 1 FROM stack_layers WHERE stack_layers.layer = layers.id)";
            let sum = |what: &str, which: &str| {
                count(&format!(
                    "SELECT coalesce(sum({what}), 0) FROM layers WHERE {which}"
                ))
            };
            Ok(StoreStats {
                snapshots: count("SELECT count(*) FROM snapshots")?,
                images: count("SELECT count(*) FROM images")?,
                vms: count("SELECT count(*) FROM vms")?,
                layers: count("SELECT count(*) FROM layers WHERE state = 1")?,
                unused_layers: count(&format!("SELECT count(*) FROM layers WHERE {unused}"))?,
                bytes: sum("bytes", "state = 1")?,
                shared_bytes: sum("linked_bytes", "state = 1")?,
                unused_bytes: sum("bytes - linked_bytes", unused)?,
                unmeasured_layers: count(
                    "SELECT count(*) FROM layers WHERE state = 1 AND bytes IS NULL",
                )?,
                caches,
                cache_bytes,
            })
        })
    }

    /// Drops all layers that no snapshot, image or VM uses. Their files are removed in the
    /// background.
    ///
    /// # Errors
    ///
    /// A failure of the database.
    pub fn collect_unused(&self) -> Result<CollectReport, StoreError> {
        let core = self.core();
        let report = core.db.write("collecting unused layers", |tx| {
            let unused: Vec<(i64, u64)> = tx
                .prepare_cached(
                    "SELECT id, coalesce(bytes - linked_bytes, 0) FROM layers
                     WHERE state = 1 AND NOT EXISTS
                         (SELECT 1 FROM stack_layers WHERE stack_layers.layer = layers.id)",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let mut report = CollectReport::default();
            for (layer, bytes) in unused {
                if stack::doom_if_unused(tx, layer, core.session.id, false)? {
                    report.layers += 1;
                    report.bytes += bytes;
                }
            }
            forget_old_injects(tx, core.session.id, 0)?;
            Ok(report)
        })?;
        if report.layers > 0 {
            self.add_job(Job::Doomed);
        }
        LayerLock::collect_dead(&core.layout)?;
        Ok(report)
    }

    /// What dead processes left, and what rows and directories disagree about. Opening the store
    /// collects the former; the latter should never be, but after damage from outside.
    ///
    /// # Errors
    ///
    /// A failure to look.
    pub fn leftovers(&self) -> Result<Vec<Leftover>, StoreError> {
        let core = self.core();
        let layout = &core.layout;
        let mut found = Vec::new();
        // Directories before rows: a row is always made before its directory.
        let layers = numbers(&layout.layers())?;
        let vms = numbers(&layout.vms())?;
        let (sessions, known_layers, known_vms) = self.core().db.read_state("looking", |rows| {
            Ok((
                others(rows, core.session.id)?,
                ids(rows, "SELECT id FROM layers")?,
                ids(rows, "SELECT id FROM vms")?,
            ))
        })?;
        for id in layers.difference(&known_layers) {
            note(&mut found, "a layer without a row", layout.layer(*id));
        }
        for id in vms.difference(&known_vms) {
            note(&mut found, "a VM without a row", layout.vm(*id));
        }
        let mut alive: HashSet<i64> = HashSet::from([core.session.id]);
        for session in sessions {
            if is_alive(layout, session) {
                alive.insert(session);
            } else {
                let path = layout.session_lock(session);
                found.push(Leftover {
                    what: "a session whose process is gone",
                    path,
                });
            }
        }
        for (what, directory) in [
            ("a half-made directory", layout.tmp()),
            ("a directory to be removed", layout.trash()),
        ] {
            for name in names(&directory)? {
                let owner = layout.owner(&name, core.session.id);
                if owner.is_none_or(|id| !alive.contains(&id)) {
                    note(&mut found, what, directory.join(name));
                }
            }
        }
        self.note_missing_layers(&mut found)?;
        note_damaged(core, &mut found)?;
        Ok(found)
    }

    fn note_missing_layers(&self, found: &mut Vec<Leftover>) -> Result<(), StoreError> {
        let core = self.core();
        let present = |sql: &str| {
            core.db
                .read("looking", |connection| Ok(ids(connection, sql)?))
        };
        let sql = "SELECT id FROM layers WHERE state = 1";
        let mut missing: Vec<i64> = present(sql)?
            .into_iter()
            .filter(|layer| !core.layout.layer_tree(*layer).is_dir())
            .collect();
        if !missing.is_empty() {
            // Unless it was removed meanwhile, row and all.
            let still = present(sql)?;
            missing.retain(|layer| still.contains(layer));
        }
        for layer in missing {
            found.push(Leftover {
                what: "a row whose layer is missing",
                path: core.layout.layer_tree(layer),
            });
        }
        Ok(())
    }
}

/// Notes what is still there: others may have removed it meanwhile.
fn note(found: &mut Vec<Leftover>, what: &'static str, path: PathBuf) {
    if exists(&path) {
        found.push(Leftover { what, path });
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn ids(connection: &Connection, sql: &str) -> rusqlite::Result<HashSet<i64>> {
    connection
        .prepare_cached(sql)?
        .query_map([], |row| row.get(0))?
        .collect()
}
