//! Removing a directory that a later entry replaces.

use std::os::fd::BorrowedFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::beneath::{DIRECTORY, join, open_beneath, read_names, split};

/// Removes a directory with all that is in it, without recursion and with one open directory.
pub(super) fn remove_tree(root: BorrowedFd<'_>, path: &[u8]) -> Result<(), Errno> {
    let mut buffer = Vec::new();
    let mut left = vec![path.to_owned()];
    while let Some(directory) = left.last().cloned() {
        let open = open_beneath(root, &directory, DIRECTORY)?;
        let mut names = Vec::new();
        read_names(&open, &mut buffer, &mut |name, _| {
            names.push(name.to_owned())
        })?;
        let before = left.len();
        for name in names {
            match rustix::fs::unlinkat(&open, &name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => left.push(join(&directory, name.to_bytes())),
                result => result?,
            }
        }
        if left.len() == before {
            left.pop();
            let (parent, name) = split(&directory);
            let parent = open_beneath(root, parent, DIRECTORY)?;
            rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}
