//! Directories that outlive VMs, kept under a name.
//!
//! ```text
//! caches/<hash of the name>/name    "hm-vm cache 1\n" and the name
//!                           tree/   what VMs see; the guest's root owns it
//!                           lock    locked exclusively or shared, by those who agree on turns
//!                           users   locked shared by everybody who uses it; last used: its mtime
//! ```
//!
//! A cache is made in `tmp` and renamed into place, and renamed into `trash` when it is removed: at
//! every moment it is there as a whole, or not. It has no row: `caches` is the truth.

mod directory;
mod lock;
mod replace;

pub use directory::CacheInfo;
pub(crate) use directory::note_damaged;
pub use lock::CacheLock;
