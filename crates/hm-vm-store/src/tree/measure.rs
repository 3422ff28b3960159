//! Sizes of trees.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::tree::directory::{file_type, join, list, open_directory, stat};

/// What a tree takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Bytes allocated for all files and directories; files with several names count once.
    pub(crate) bytes: u64,
    /// The part of these bytes in files that have names outside the tree too.
    pub(crate) linked_bytes: u64,
}

/// Measures the tree at `root`. What vanishes meanwhile, as in a cache that is used, does not count.
pub(crate) fn measure(root: &Path) -> io::Result<Size> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let allocated = |blocks: i64| u64::try_from(blocks).unwrap_or(0) * 512;
    let mut size = Size {
        bytes: allocated(rustix::fs::fstat(&root)?.st_blocks),
        linked_bytes: 0,
    };
    // Of each file with several names: its size, and how many names are still to be found.
    let mut linked: HashMap<u64, (u64, u64)> = HashMap::new();
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let directory = match open_directory(root.as_fd(), &path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            other => other?,
        };
        for (name, _) in list(directory.as_fd())? {
            let found = match stat(directory.as_fd(), &name) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let bytes = allocated(found.st_blocks);
            if file_type(&found) == FileType::Directory {
                todo.push(join(&path, name.to_bytes()));
            } else if found.st_nlink > 1 {
                let links = found.st_nlink;
                let entry = linked.entry(found.st_ino).or_insert((bytes, links));
                entry.1 = entry.1.saturating_sub(1);
                continue;
            }
            size.bytes += bytes;
        }
    }
    for (bytes, missing) in linked.into_values() {
        size.bytes += bytes;
        if missing > 0 {
            size.linked_bytes += bytes;
        }
    }
    Ok(size)
}
