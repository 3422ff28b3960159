//! What opening a store finds and sets right.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, Transaction, params};

use crate::db::stack::{self, state};
use crate::db::{Db, Failure};
use crate::error::{Context, StoreError};
use crate::layout::Layout;
use crate::session::{self, Session};

/// What is left for the background to do.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Directories in `trash`, to be removed.
    pub(crate) trash: Vec<PathBuf>,
    /// Whether there are doomed layers to remove.
    pub(crate) doomed: bool,
    /// Whether rows of this boot have waited long to be made durable or measured.
    pub(crate) unsettled: bool,
}

/// Begins a session, and takes over and sorts out what dead ones left: all in one transaction.
/// Files are only renamed in it; when it fails, rows without files remain, which the next one
/// finds as well.
pub(crate) fn begin(
    layout: &Layout,
    db: &Db,
    boot: &str,
) -> Result<(Session, Recovered), StoreError> {
    db.write("opening the store", |tx| {
        let session = Session::begin(tx, layout)?;
        let mut recovered = Recovered::default();
        let mut work = Recovery {
            tx,
            layout,
            boot,
            session: session.id,
            found: &mut recovered,
        };
        if session.take_over_dead(tx, layout)? {
            work.sort_out_taken_over()?;
        }
        if work.is_first_in_boot()? {
            work.drop_undurable()?;
            work.check_everything()?;
            work.remember_boot()?;
        }
        work.collect_loose_files()?;
        work.look_for_unsettled()?;
        Ok((session, recovered))
    })
}

struct Recovery<'a> {
    tx: &'a Transaction<'a>,
    layout: &'a Layout,
    boot: &'a str,
    session: i64,
    found: &'a mut Recovered,
}

impl Recovery<'_> {
    /// VMs and half-made layers of dead sessions, now this session's own.
    fn sort_out_taken_over(&mut self) -> Result<(), Failure> {
        let vms: Vec<(i64, i64)> = self
            .tx
            .prepare_cached("SELECT id, stack FROM vms WHERE session = ?1")?
            .query_map([self.session], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (vm, stack) in vms {
            self.discard(&self.layout.vm(vm))?;
            self.tx
                .prepare_cached("DELETE FROM vms WHERE id = ?1")?
                .execute([vm])?;
            stack::release(self.tx, stack, self.session)?;
        }
        for layer in self.layers("session = ?1 AND state = ?2", state::PENDING)? {
            self.discard(&self.layout.layer(layer))?;
            self.delete_layer(layer)?;
        }
        // Leases of dead readers are gone: their stacks may have no user left.
        let loose: Vec<i64> = self
            .tx
            .prepare_cached(
                "SELECT id FROM stacks WHERE id NOT IN (SELECT stack FROM snapshots)
                 AND id NOT IN (SELECT stack FROM images) AND id NOT IN (SELECT stack FROM vms)
                 AND id NOT IN (SELECT stack FROM leases)",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for stack in loose {
            stack::release(self.tx, stack, self.session)?;
        }
        self.found.doomed = true;
        Ok(())
    }

    fn is_first_in_boot(&self) -> Result<bool, Failure> {
        let last: Option<String> = self
            .tx
            .prepare_cached("SELECT value FROM meta WHERE name = 'boot'")?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(last.as_deref() != Some(self.boot))
    }

    fn remember_boot(&self) -> Result<(), Failure> {
        self.tx.execute(
            "INSERT INTO meta (name, value) VALUES ('boot', ?1)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [self.boot],
        )?;
        Ok(())
    }

    /// Drops what an earlier boot never made durable: after a loss of power, files of it may be
    /// missing or empty.
    fn drop_undurable(&mut self) -> Result<(), Failure> {
        for layer in self.layers("boot <> ?3 AND durable = 0 AND state = ?2", state::PRESENT)? {
            self.drop_users_of(layer)?;
            self.found.doomed |= stack::doom_if_unused(self.tx, layer, self.session, false)?;
        }
        for table in ["snapshots", "images"] {
            let rows = self.ids_and_stacks(&format!(
                "SELECT id, stack FROM {table} WHERE durable = 0 AND boot <> ?1"
            ))?;
            self.drop_rows(table, rows)?;
        }
        Ok(())
    }

    /// Compares rows and directories.
    fn check_everything(&mut self) -> Result<(), Failure> {
        let present: HashSet<i64> = numbers(&self.layout.layers())?;
        let mut known = HashSet::new();
        for layer in self.layers("?2 = ?2", 0)? {
            known.insert(layer);
        }
        for layer in self.layers("state = ?2", state::PRESENT)? {
            if !self.layout.layer_tree(layer).is_dir() {
                self.drop_users_of(layer)?;
                stack::doom_if_unused(self.tx, layer, self.session, false)?;
                self.found.doomed = true;
            }
        }
        for layer in present.difference(&known) {
            self.discard(&self.layout.layer(*layer))?;
        }
        let vms: HashSet<i64> = self
            .tx
            .prepare("SELECT id FROM vms")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for vm in numbers(&self.layout.vms())?.difference(&vms) {
            self.discard(&self.layout.vm(*vm))?;
        }
        Ok(())
    }

    /// Entries of `tmp`, `trash` and `sessions` that no living session has.
    fn collect_loose_files(&mut self) -> Result<(), Failure> {
        let mut alive: HashSet<i64> = session::others(self.tx, self.session)?
            .into_iter()
            .collect();
        alive.insert(self.session);
        for name in names(&self.layout.sessions())? {
            let id = name.strip_suffix(".lock").and_then(|id| id.parse().ok());
            if id.is_none_or(|id: i64| !alive.contains(&id)) {
                let _ = fs::remove_file(self.layout.sessions().join(name));
            }
        }
        for directory in [self.layout.tmp(), self.layout.trash()] {
            for name in names(&directory)? {
                let owner = self.layout.owner(&name, self.session);
                if owner.is_none_or(|id| !alive.contains(&id)) {
                    self.discard(&directory.join(name))?;
                }
            }
        }
        Ok(())
    }

    /// Rows that a short-lived process left to be made durable. Within half a minute the kernel
    /// writes everything back by itself; then a sync costs little.
    fn look_for_unsettled(&mut self) -> Result<(), Failure> {
        let old = crate::store::now_micros() - 40_000_000;
        self.found.unsettled = self
            .tx
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM snapshots
                     WHERE durable = 0 AND boot = ?1 AND created < ?2)
                 OR EXISTS (SELECT 1 FROM images WHERE durable = 0 AND boot = ?1)",
            )?
            .query_row(params![self.boot, old], |row| row.get(0))?;
        Ok(())
    }

    fn layers(&self, which: &str, state: i64) -> Result<Vec<i64>, Failure> {
        // All parameters are named in every query, whether it needs them or not.
        let sql =
            format!("SELECT id FROM layers WHERE ({which}) AND ?1 = ?1 AND ?2 = ?2 AND ?3 = ?3");
        Ok(self
            .tx
            .prepare_cached(&sql)?
            .query_map(params![self.session, state, self.boot], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?)
    }

    fn delete_layer(&self, layer: i64) -> Result<(), Failure> {
        self.tx
            .prepare_cached("DELETE FROM layers WHERE id = ?1")?
            .execute([layer])?;
        Ok(())
    }

    /// Drops snapshots and images that stand on a layer which is lost.
    fn drop_users_of(&mut self, layer: i64) -> Result<(), Failure> {
        for table in ["snapshots", "images"] {
            let sql = format!(
                "SELECT id, stack FROM {table}
                 WHERE stack IN (SELECT stack FROM stack_layers WHERE layer = {layer})
                 AND ?1 = ?1"
            );
            let rows = self.ids_and_stacks(&sql)?;
            self.drop_rows(table, rows)?;
        }
        Ok(())
    }

    fn ids_and_stacks(&self, sql: &str) -> Result<Vec<(i64, i64)>, Failure> {
        Ok(self
            .tx
            .prepare(sql)?
            .query_map([self.boot], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?)
    }

    fn drop_rows(&mut self, table: &str, rows: Vec<(i64, i64)>) -> Result<(), Failure> {
        for (id, stack) in rows {
            self.tx
                .execute(&format!("DELETE FROM {table} WHERE id = ?1"), [id])?;
            self.found.doomed |= stack::release(self.tx, stack, self.session)?;
        }
        Ok(())
    }

    fn discard(&mut self, path: &Path) -> Result<(), Failure> {
        let trash = self.layout.new_trash(self.session);
        match fs::rename(path, &trash) {
            Ok(()) => self.found.trash.push(trash),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("renaming", path).map_err(Failure::from),
        }
        Ok(())
    }
}

/// Entries of a directory.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).context("listing", directory)? {
        let name = entry.context("listing", directory)?.file_name();
        found.push(name.to_string_lossy().into_owned());
    }
    Ok(found)
}

/// Entries of a directory whose names are numbers.
pub(crate) fn numbers(directory: &Path) -> Result<HashSet<i64>, StoreError> {
    Ok(names(directory)?
        .into_iter()
        .filter_map(|name| name.parse().ok())
        .collect())
}
