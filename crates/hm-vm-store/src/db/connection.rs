//! Connections and transactions.
//!
//! One connection writes, another reads, so that a reader never waits for a writer of the same
//! process. Commits do not wait for the disk (`synchronous=NORMAL`); the background thread moves
//! the log into the database, so that nobody else waits for that either.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::db::schema::{self, Found};
use crate::error::StoreError;
use crate::layout::Layout;

/// How long to wait for another process's transaction. None of ours takes longer than
/// milliseconds.
const BUSY: Duration = Duration::from_secs(60);
/// Length of the log at which the background moves it.
const LOG_BYTES: u64 = 1 << 20;
/// Pages of log at which even a foreground commit moves them into the database: 64 MiB.
const LOG_PAGES_HARD: i64 = 16384;

/// A failure inside a transaction.
#[derive(Debug)]
pub(crate) enum Failure {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The database of a store.
#[derive(Debug)]
pub(crate) struct Db {
    path: PathBuf,
    writer: Mutex<Connection>,
    reader: Mutex<Option<Connection>>,
    /// Length of the log when it was last moved into the database.
    moved_at: AtomicU64,
}

impl Db {
    /// Opens the database, creating or migrating it where needed.
    pub(crate) fn open(layout: &Layout) -> Result<Self, StoreError> {
        let path = layout.database();
        let mut writer = connect(&path)?;
        if let Found::ToMigrate = schema::examine(&writer, &path)? {
            let _setup = layout.lock_for_setup()?;
            if let Found::ToMigrate = schema::examine(&writer, &path)? {
                schema::migrate(&mut writer, &path)?;
            }
        }
        Ok(Self {
            path,
            writer: Mutex::new(writer),
            reader: Mutex::new(None),
            moved_at: AtomicU64::new(0),
        })
    }

    /// Runs `work` in a transaction that writes. It is undone when `work` fails.
    pub(crate) fn write<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut connection = lock(&self.writer);
        let run = |connection: &mut Connection| -> Result<T, Failure> {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        };
        run(&mut connection).map_err(|failure| self.error(doing, failure))
    }

    /// Runs `work` on a connection for reading. Several statements in it may see different states.
    pub(crate) fn read<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut reader = lock(&self.reader);
        if reader.is_none() {
            *reader = Some(connect(&self.path)?);
        }
        match reader.as_ref() {
            Some(connection) => work(connection).map_err(|failure| self.error(doing, failure)),
            None => Err(StoreError::bad_state(&self.path, "it was closed")),
        }
    }

    /// Runs `work` on one state of the database.
    pub(crate) fn read_state<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.read(doing, |connection| {
            let tx = connection.unchecked_transaction()?;
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        })
    }

    /// Path of the write-ahead log.
    pub(crate) fn log_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push("-wal");
        path.into()
    }

    /// Moves the log into the database when it has grown long. On a connection of its own, since
    /// it waits for the disk.
    pub(crate) fn shrink_log(&self) -> Result<(), StoreError> {
        let size = std::fs::metadata(self.log_path()).map_or(0, |file| file.len());
        // A log that was moved is written again from its beginning, at its old length at first.
        if size <= LOG_BYTES || size == self.moved_at.load(Ordering::Relaxed) {
            return Ok(());
        }
        let connection = connect(&self.path)?;
        connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .map_err(|error| self.error("moving the log", error.into()))?;
        self.moved_at.store(size, Ordering::Relaxed);
        Ok(())
    }

    fn error(&self, doing: &'static str, failure: Failure) -> StoreError {
        match failure {
            Failure::Store(error) => error,
            Failure::Sql(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt) =>
            {
                StoreError::bad_state(&self.path, "the database is corrupt")
            }
            Failure::Sql(source) => StoreError::Database {
                doing,
                path: self.path.clone(),
                source,
            },
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic during a transaction rolls it back: the connection stays usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(96);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(connection)
    };
    let connection = open().map_err(|source| StoreError::Database {
        doing: "opening",
        path: path.to_owned(),
        source,
    })?;
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = {LOG_PAGES_HARD};
             PRAGMA journal_size_limit = {LOG_BYTES};"
        ))
        .map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => {
                StoreError::bad_state(path, "it is not a database")
            }
            _ => StoreError::Database {
                doing: "opening",
                path: path.to_owned(),
                source: error,
            },
        })?;
    Ok(connection)
}
