//! What to remove when space runs out.
//!
//! Collection works on snapshots, by lineage: a snapshot that others were forked from shares its
//! files with them, so removing it frees nothing. *Leaves* go first, the least recently used of
//! them before the others, and what was their parent may be a leaf then. Pinned entries are never
//! taken, nor what was used a moment ago: a run that is going on may be about to fork from it.
//!
//! Three things are asked for separately, and each removal says which one it was for: a budget of
//! bytes, a number of entries, and an age. None of them goes below the guaranteed floor. Beyond
//! that, snapshots that no key holds are removed at a certain age: ephemeral ones whose pipeline did
//! not live to remove them, and those that a crash left between snapshot and entry.

mod collect;
#[cfg(feature = "docker")]
mod docker;
mod keeper;
mod select;

pub use collect::{GcReport, Removed, collect};
pub use keeper::{Freed, Kept, SnapshotKeeper};
pub use select::{Candidate, Choice, GcPolicy, Reason, select};
