//! How large a layer is that was here before.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::tree::directory::{file_type, join, list, open_directory, stat};

/// What is in a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Bytes of all files, holes included, those with several names once.
    pub(super) bytes: u64,
    /// Number of names.
    pub(super) entries: u64,
}

/// Counts what is in an immutable tree.
pub(super) fn count(root: &Path) -> io::Result<Count> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let mut count = Count::default();
    let mut linked = HashSet::new();
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let directory = open_directory(root.as_fd(), &path)?;
        for (name, _) in list(directory.as_fd())? {
            let found = stat(directory.as_fd(), &name)?;
            count.entries += 1;
            match file_type(&found) {
                FileType::Directory => todo.push(join(&path, name.to_bytes())),
                FileType::RegularFile if found.st_nlink < 2 || linked.insert(found.st_ino) => {
                    count.bytes += u64::try_from(found.st_size).unwrap_or(0);
                }
                _ => {}
            }
        }
    }
    Ok(count)
}
