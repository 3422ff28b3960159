//! Several layers made into one that shows the same.
//!
//! Files are hard links to those of the layers, so that nothing is copied. Whiteouts and opaque
//! marks are kept: other layers may lie below. Directories are made anew, with the attributes of
//! the topmost layer's.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use crate::tree::attributes;
use crate::tree::copy::copy_content;
use crate::tree::directory::{
    OPAQUE, file_type, is_opaque, is_whiteout, join, list, open_directory, stat,
};

/// Merges `layers`, topmost first, into the empty directory `dest`. Returns whether it came to the
/// end before `stop` was set.
pub(crate) fn merge(layers: &[&Path], dest: &Path, stop: &AtomicBool) -> io::Result<bool> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
    let mut merger = Merger {
        roots: layers
            .iter()
            .map(|path| open(path))
            .collect::<rustix::io::Result<_>>()?,
        dest: open(dest)?,
        copies: HashMap::new(),
    };
    let mut todo: Vec<Todo> = vec![(Vec::new(), (0..layers.len()).collect(), false)];
    // Attributes come last, deepest first: making entries changes times, and a directory may
    // be without write permission.
    let mut made: Vec<(Vec<u8>, usize)> = Vec::new();
    while let Some((path, parts, opaque)) = todo.pop() {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        made.push((path.clone(), parts[0]));
        merger.directory(path, &parts, opaque, &mut todo)?;
    }
    for (path, part) in made.into_iter().rev() {
        let from = open_directory(merger.roots[part].as_fd(), &path)?;
        let to = open_directory(merger.dest.as_fd(), &path)?;
        attributes::copy(from.as_fd(), to.as_fd())?;
    }
    Ok(true)
}

/// A directory to do: its path, the layers that have a part of it, whether it is opaque.
type Todo = (Vec<u8>, Vec<usize>, bool);

struct Merger {
    roots: Vec<OwnedFd>,
    dest: OwnedFd,
    /// Files with several names that had to be copied: where the copy is.
    copies: HashMap<(u64, u64), (Vec<u8>, CString)>,
}

enum Slot {
    /// Parts, and whether something among them hides what is below.
    Directory {
        parts: Vec<usize>,
        closed: bool,
    },
    Other(usize),
}

impl Merger {
    fn directory(
        &mut self,
        path: Vec<u8>,
        parts: &[usize],
        opaque: bool,
        todo: &mut Vec<Todo>,
    ) -> io::Result<()> {
        let mut open = Vec::with_capacity(parts.len());
        for &part in parts {
            open.push((part, open_directory(self.roots[part].as_fd(), &path)?));
        }
        let dest = open_directory(self.dest.as_fd(), &path)?;
        if opaque {
            rustix::fs::fsetxattr(&dest, OPAQUE, b"y", XattrFlags::empty())?;
        }
        for (name, slot) in slots(&open)? {
            match slot {
                Slot::Directory { parts, closed } => {
                    rustix::fs::mkdirat(&dest, &name, Mode::RWXU)?;
                    todo.push((join(&path, name.to_bytes()), parts, closed));
                }
                Slot::Other(part) => {
                    let from = open.iter().find(|(found, _)| *found == part);
                    let from = from.map_or(dest.as_fd(), |(_, fd)| fd.as_fd());
                    self.link(from, dest.as_fd(), &path, &name, opaque)?;
                }
            }
        }
        Ok(())
    }

    fn link(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &[u8],
        name: &CStr,
        opaque: bool,
    ) -> io::Result<()> {
        let found = stat(from, name)?;
        if opaque && is_whiteout(&found) {
            // Nothing shines through here anyway.
            return Ok(());
        }
        match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
            // As many links as the file system allows, or a file that may not be linked to.
            Err(Errno::MLINK | Errno::PERM | Errno::XDEV) => {}
            other => return Ok(other?),
        }
        let key = (found.st_dev, found.st_ino);
        if found.st_nlink > 1
            && let Some((directory, first)) = self.copies.get(&key)
        {
            let directory = open_directory(self.dest.as_fd(), directory)?;
            return Ok(rustix::fs::linkat(
                &directory,
                first,
                to,
                name,
                AtFlags::empty(),
            )?);
        }
        copy_entry(from, to, name, &found)?;
        if found.st_nlink > 1 {
            self.copies.insert(key, (path.to_vec(), name.to_owned()));
        }
        Ok(())
    }
}

/// What the layers together have in a directory.
fn slots(open: &[(usize, OwnedFd)]) -> io::Result<BTreeMap<CString, Slot>> {
    let mut slots: BTreeMap<CString, Slot> = BTreeMap::new();
    for (part, fd) in open {
        for (name, kind) in list(fd.as_fd())? {
            let is_directory = match kind {
                FileType::Unknown => file_type(&stat(fd.as_fd(), &name)?) == FileType::Directory,
                known => known == FileType::Directory,
            };
            match slots.get_mut(&name) {
                Some(Slot::Other(_) | Slot::Directory { closed: true, .. }) => {}
                Some(Slot::Directory { parts, closed }) => {
                    if is_directory {
                        parts.push(*part);
                        *closed = child_is_opaque(fd, &name)?;
                    } else {
                        *closed = true;
                    }
                }
                None if is_directory => {
                    let closed = child_is_opaque(fd, &name)?;
                    let parts = vec![*part];
                    slots.insert(name, Slot::Directory { parts, closed });
                }
                None => {
                    slots.insert(name, Slot::Other(*part));
                }
            }
        }
    }
    Ok(slots)
}

fn child_is_opaque(parent: &OwnedFd, name: &CStr) -> io::Result<bool> {
    let child = crate::tree::directory::open_child(parent.as_fd(), name)?;
    Ok(is_opaque(child.as_fd()))
}

/// Makes anew what cannot be linked to.
fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    found: &Stat,
) -> io::Result<()> {
    let owner = Some(Uid::from_raw(found.st_uid));
    let group = Some(Gid::from_raw(found.st_gid));
    let kind = file_type(found);
    let mode = Mode::from_raw_mode(found.st_mode & 0o7777);
    match kind {
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, read, Mode::empty())?;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, write, Mode::RUSR | Mode::WUSR)?;
            let (source, target) = (File::from(source), File::from(target));
            copy_content(&source, &target)?;
            return Ok(attributes::copy(source.as_fd(), target.as_fd())?);
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
        }
        other => rustix::fs::mknodat(to, name, other, mode, found.st_rdev)?,
    }
    rustix::fs::chownat(to, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
    }
    let times = attributes::times(found);
    rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}
