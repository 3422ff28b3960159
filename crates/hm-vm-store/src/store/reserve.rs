//! Space for the rows when the disk is full.
//!
//! To remove anything, rows have to be written. A process that was killed with its VM's files
//! filling the disk would leave a store that cannot even be opened to remove them. So every store
//! keeps a file of nothing, which is given up then, and made again at a later opening.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::FallocateFlags;

use crate::layout::Layout;

/// Enough for the log of the database, its index, and some transactions.
const BYTES: u64 = 1 << 20;

/// Makes the file where it is missing. Without the space for it there is none: nothing depends on
/// it before the disk is full.
pub(crate) fn keep(layout: &Layout) {
    let path = layout.reserve();
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    let Ok(file) = made else { return };
    if rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES).is_err() {
        give_up(layout);
    }
}

/// Removes the file. Whether there was one.
pub(crate) fn give_up(layout: &Layout) -> bool {
    fs::remove_file(layout.reserve()).is_ok()
}
