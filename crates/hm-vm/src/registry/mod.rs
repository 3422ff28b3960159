//! The persistent map from cache key to snapshot.
//!
//! # Order
//!
//! Entries are ordered by use: every use gives an entry a number one above the highest there is, in
//! the transaction of the use itself. The clock is not asked, so two uses in the same instant have
//! an order, and a clock that jumps back does no harm. The numbers live in the file; they need no
//! counter row of their own, as the highest one is the last of an index.
//!
//! # Locking
//!
//! One connection per [`ImageRegistry`], behind a mutex; SQLite's own locks between connections and
//! processes. Nobody sleeps with the mutex held: an operation that finds the file busy lets go of
//! everything, waits a little, and tries again. Async callers try once on their own thread, which
//! is all that an uncontended operation takes, and move to a blocking thread only then.
//!
//! # Durability
//!
//! WAL with `synchronous = NORMAL`: a crash of the program loses nothing; a power loss may lose the
//! last entries, never the file's integrity. A lost entry means that work is done again.
//!
//! # Compatibility
//!
//! The file carries an `application_id` and, in `user_version`, the number of migrations applied.
//! Older files are migrated at [`ImageRegistry::open`]. Newer, foreign and corrupt ones are refused with
//! [`Error::BadState`](hm_vm_core::Error::BadState), and not written to.
//!
//! # Files
//!
//! Beside `registry.db` (and SQLite's `-wal` and `-shm`): `registry.db.logs/`, the stored output of
//! entries that have any, in `registry.db.logs/tmp/` while it is being recorded; and
//! `registry.db.locks/`, one lock file per key that is being produced.

mod connection;
mod doomed;
mod engine;
mod entries;
mod error;
mod face;
mod header;
mod lost;
mod put;
mod schema;

pub use entries::{Entry, Hit};
pub use error::RegistryError;
pub use face::ImageRegistry;
pub use lost::Lost;
#[cfg(feature = "sandbox")]
pub(crate) use lost::SNAPSHOT_GONE;
pub(crate) use put::Publication;
pub use put::{PutDetails, StoredOutput};

#[cfg(test)]
mod tests;
