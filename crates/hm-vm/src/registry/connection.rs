//! One connection to the file, shared by the threads of this process.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::{RegistryError, is_busy, is_corrupt};
use super::{header, schema};

/// How long an operation waits for other processes. Transactions take microseconds and checkpoints
/// milliseconds: only a stopped process holds the file longer.
const BUSY_LIMIT: Duration = Duration::from_secs(30);
/// Between two attempts; doubled after each, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Prepared statements kept: all that this crate has.
const STATEMENTS: usize = 64;

#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Shared {
    /// Opens the file, making it and its parent folders where missing, and migrates it.
    pub(super) fn open(path: &Path) -> Result<Self, RegistryError> {
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            std::fs::create_dir_all(parent).map_err(|source| RegistryError::Io {
                doing: "create the directory",
                path: parent.to_owned(),
                source,
            })?;
        }
        header::check(path)?;
        let failed = |source: rusqlite::Error| failure("open the file", path, source);
        // No URI: a path that begins with `file:` is a path. No mutex: there is one around it.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // Until the file is known to be ours, closing it must not write to it.
        let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        connection.set_db_config(keep, true).map_err(failed)?;
        connection.busy_timeout(BUSY_LIMIT).map_err(failed)?;
        wait_for_others(path, || prepare(&mut connection, path))?;
        connection.set_db_config(keep, false).map_err(failed)?;
        connection.busy_timeout(Duration::ZERO).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `operation` once. `None` when the file is busy.
    pub(super) fn attempt<T>(
        &self,
        doing: &'static str,
        operation: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, RegistryError> {
        match operation(&mut self.lock()) {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_busy(&error) => Ok(None),
            Err(error) => Err(failure(doing, &self.path, error)),
        }
    }

    /// Runs `operation`, again and again while the file is busy. Blocks the thread meanwhile.
    pub(super) fn run<T>(
        &self,
        doing: &'static str,
        mut operation: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, RegistryError> {
        let mut waiting: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(value) = self.attempt(doing, &mut operation)? {
                return Ok(value);
            }
            let waited = waiting.get_or_insert_with(Instant::now).elapsed();
            if waited >= BUSY_LIMIT {
                return Err(RegistryError::Busy {
                    doing,
                    path: self.path.clone(),
                    waited,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic inside an operation rolled its transaction back: the connection is sound.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Repeats `open` while other processes are in the way: switching to WAL asks for the whole file
/// without using the busy timeout.
fn wait_for_others(
    path: &Path,
    mut open: impl FnMut() -> Result<(), RegistryError>,
) -> Result<(), RegistryError> {
    let start = Instant::now();
    loop {
        match open() {
            Err(RegistryError::Sqlite { doing, source, .. }) if is_busy(&source) => {
                if start.elapsed() >= BUSY_LIMIT {
                    return Err(RegistryError::Busy {
                        doing,
                        path: path.to_owned(),
                        waited: start.elapsed(),
                    });
                }
                std::thread::sleep(LONGEST_PAUSE);
            }
            done => return done,
        }
    }
}

/// Migrates the file and sets the connection up.
fn prepare(connection: &mut Connection, path: &Path) -> Result<(), RegistryError> {
    let failed = |source: rusqlite::Error| failure("open the file", path, source);
    if !is_current(connection, path)? {
        schema::migrate(connection, schema::MIGRATIONS).map_err(failed)?;
        if !is_current(connection, path)? {
            return Err(RegistryError::BadState {
                path: path.to_owned(),
                reason: "another program is changing it".into(),
            });
        }
    }
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .and_then(|()| connection.pragma_update(None, "synchronous", "NORMAL"))
        // Reads of a large file come from the page cache without a copy; 16 MiB of hot pages are
        // kept, 16 MiB of WAL are gathered before they are written back.
        .and_then(|()| connection.pragma_update(None, "mmap_size", 1_i64 << 30))
        .and_then(|()| connection.pragma_update(None, "cache_size", -16_384))
        .and_then(|()| connection.pragma_update(None, "wal_autocheckpoint", 4096))
        .map_err(failed)
}

/// Whether the file has the current schema. Fails when it never will have.
fn is_current(connection: &Connection, path: &Path) -> Result<bool, RegistryError> {
    let bad = |reason: String| RegistryError::BadState {
        path: path.to_owned(),
        reason,
    };
    // One transaction, so that the marks and the tables are of the same moment: another process
    // may be making them.
    let state = connection
        .unchecked_transaction()
        .and_then(|transaction| schema::state(&transaction));
    match state {
        Ok(schema::State::Empty) => Ok(false),
        Ok(schema::State::Of(version)) if version > schema::VERSION => {
            Err(bad(schema::newer(version)))
        }
        Ok(schema::State::Of(version)) => Ok(version == schema::VERSION),
        Ok(schema::State::Foreign) => {
            Err(bad("it is the SQLite database of another program".into()))
        }
        Err(source) => Err(failure("open the file", path, source)),
    }
}

fn failure(doing: &'static str, path: &Path, source: rusqlite::Error) -> RegistryError {
    if is_corrupt(&source) {
        return RegistryError::BadState {
            path: path.to_owned(),
            reason: format!("it is corrupt ({source}): move it away to start with an empty one"),
        };
    }
    RegistryError::Sqlite {
        doing,
        path: path.to_owned(),
        source,
    }
}
