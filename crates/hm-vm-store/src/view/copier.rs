//! Writes files of a snapshot below a host directory.
//!
//! What comes out was made by a guest that may want to harm whoever takes it. Nothing is written
//! through a symbolic link below the destination, no device node is made, set-id and sticky bits
//! are dropped unless they are asked for, and everything belongs to the caller. A file appears
//! whole, by a rename.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, StoreError};
use crate::tree::attributes::times;
use crate::tree::compare::is_same;
use crate::tree::copy::copy_content;
use crate::tree::directory::{file_type, join, open_child, open_directory, stat};
use crate::view::CopyReport;
use crate::view::merged::{Directory, Leaf, Merged, Node};
use crate::view::reader::{absolute, guest_error};

/// How to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Keep set-user-id, set-group-id and sticky bits.
    pub(super) special_bits: bool,
    /// Results of a build rather than a faithful copy: what is there already, the same, is left alone; a
    /// symbolic link in place of a file is replaced; what is written has been modified now; and
    /// its owner can always write to a directory.
    pub(super) leave_equal: bool,
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) report: CopyReport,
    /// Files and links that were there already.
    pub(super) unchanged: u64,
}

pub(super) struct Copier<'a> {
    tree: &'a Merged,
    /// The directory in which the copy is made; everything is opened relative to it.
    root: OwnedFd,
    parent: &'a Path,
    manner: Manner,
    copied: Copied,
    /// Directories that were made, whose modes and times are set last.
    directories: Vec<(Vec<u8>, Stat)>,
    /// From which guest path each target came.
    sources: HashMap<Vec<u8>, Vec<u8>>,
    /// What was made way for last: matches mostly come sorted.
    way: Vec<u8>,
    /// Names of files that are being written begin with it. A guest cannot know it.
    temporary: String,
    counter: u64,
}

impl<'a> Copier<'a> {
    /// Writes below the directory `parent`, which may be a symbolic link.
    pub(super) fn new(
        tree: &'a Merged,
        parent: &'a Path,
        manner: Manner,
    ) -> Result<Self, StoreError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = rustix::fs::open(parent, flags, Mode::empty()).context("opening", parent)?;
        let mut random = [0u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .context("reading", "/dev/urandom")?;
        Ok(Self {
            tree,
            root,
            parent,
            manner,
            copied: Copied::default(),
            directories: Vec::new(),
            sources: HashMap::new(),
            way: Vec::new(),
            temporary: format!(".hmvm-{:016x}", u64::from_ne_bytes(random)),
            counter: 0,
        })
    }

    /// Goes on with another tree, whose paths are of the same guest.
    pub(super) fn go_on_with(&mut self, tree: &'a Merged) {
        self.tree = tree;
    }

    /// Copies a directory and all that is in it to `name`; what is in it, where that is `.`.
    pub(super) fn tree(&mut self, top: Directory, name: &CStr) -> Result<(), StoreError> {
        let target = match name.to_bytes() {
            b"." => Vec::new(),
            name => name.to_vec(),
        };
        self.tree_at(top, target)
    }

    /// Copies a directory and all that is in it to the relative path `target`.
    pub(super) fn tree_at(&mut self, top: Directory, target: Vec<u8>) -> Result<(), StoreError> {
        let mut todo = vec![(top, target)];
        while let Some((directory, target)) = todo.pop() {
            self.make_directory(&directory, &target)?;
            let open = self.tree.open_directory(&directory);
            let entries = open
                .and_then(|open| open.entries())
                .map_err(|error| read_error(&directory.path, error))?;
            for (name, node) in entries {
                match node {
                    Node::Directory(child) => {
                        todo.push((child, join(&target, name.to_bytes())));
                    }
                    Node::Leaf(leaf) => self.leaf(&leaf, &target, &name)?,
                }
            }
        }
        Ok(())
    }

    /// Makes the directories on the way to `target`, itself included.
    pub(super) fn make_way(&mut self, target: &[u8]) -> Result<(), StoreError> {
        if self.way == target {
            return Ok(());
        }
        let ends = target
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte == b'/')
            .map(|(at, _)| at);
        for end in ends.chain([target.len()]).filter(|&end| end > 0) {
            self.ensure_directory(&target[..end], Mode::from_raw_mode(0o777))?;
        }
        self.way = target.to_vec();
        Ok(())
    }

    fn make_directory(&mut self, directory: &Directory, target: &[u8]) -> Result<(), StoreError> {
        self.copied.report.directories += 1;
        let found = self
            .tree
            .stat_directory(directory)
            .map_err(|error| read_error(&directory.path, error))?;
        if !target.is_empty() && self.ensure_directory(target, Mode::RWXU)? {
            self.directories.push((target.to_vec(), found));
        }
        Ok(())
    }

    /// Returns whether it was made. Its parent is there.
    fn ensure_directory(&self, target: &[u8], mode: Mode) -> Result<bool, StoreError> {
        let (above, name) = crate::beneath::split(target);
        let name = CString::new(name).unwrap_or_default();
        let above = self.open(above)?;
        match rustix::fs::mkdirat(&above, &name, mode) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).context("creating", self.host(target)),
        }
        match open_child(above.as_fd(), &name) {
            Ok(_) => Ok(false),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                Err(self.refuse(target, "it exists and is not a directory"))
            }
            Err(errno) => Err(errno).context("opening", self.host(target)),
        }
    }

    /// Copies a file or link into the directory `target`, which is there.
    pub(super) fn leaf(
        &mut self,
        leaf: &Leaf,
        target: &[u8],
        name: &CStr,
    ) -> Result<(), StoreError> {
        let source = join(&leaf.directory, leaf.name.to_bytes());
        let path = join(target, name.to_bytes());
        if !self.is_first_at(&path, &source)? {
            return Ok(());
        }
        let found = self
            .tree
            .stat(&Node::Leaf(leaf.clone()))
            .map_err(|error| read_error(&source, error))?;
        let directory = self.open(target)?;
        let directory = directory.as_fd();
        match file_type(&found) {
            FileType::RegularFile => {
                let from = self
                    .tree
                    .open_file(leaf)
                    .map_err(|error| read_error(&source, error))?;
                self.file(&File::from(from), &found, directory, name, &path)
            }
            FileType::Symlink => {
                let link = self
                    .tree
                    .read_link(leaf)
                    .map_err(|error| read_error(&source, error))?;
                self.link(&link, directory, name, &path)
            }
            _ => {
                self.copied.report.skipped.push(absolute(b"", &source));
                Ok(())
            }
        }
    }

    /// Whether nothing was brought to `path` yet. Two different files are not.
    fn is_first_at(&mut self, path: &[u8], source: &[u8]) -> Result<bool, StoreError> {
        match self.sources.get(path) {
            None => {
                self.sources.insert(path.to_vec(), source.to_vec());
                Ok(true)
            }
            Some(earlier) if earlier == source => Ok(false),
            Some(earlier) => {
                let both = [earlier, source].map(|path| absolute(b"", path).display().to_string());
                let reason = format!("both {} and {} would be written to it", both[0], both[1]);
                Err(self.refuse(path, &reason))
            }
        }
    }

    fn file(
        &mut self,
        from: &File,
        found: &Stat,
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> Result<(), StoreError> {
        let existing = self.existing(directory, name, path)?;
        let mode = self.mode(found);
        if self.manner.leave_equal
            && existing.is_some_and(|old| {
                file_type(&old) == FileType::RegularFile
                    && Mode::from_raw_mode(old.st_mode) == mode
                    && old.st_size == found.st_size
            })
            && self.is_same_content((from, found.st_size), directory, name, path)?
        {
            self.copied.unchanged += 1;
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let temporary = self.temporary_name();
        let owner = Mode::RUSR | Mode::WUSR;
        let to = rustix::fs::openat(directory, &temporary, flags | OFlags::CLOEXEC, owner)
            .context("creating", self.host(path))?;
        let to = File::from(to);
        let written = copy_content(from, &to).and_then(|()| {
            rustix::fs::fchmod(&to, mode)?;
            if !self.manner.leave_equal {
                rustix::fs::futimens(&to, &times(found))?;
            }
            Ok(())
        });
        self.put_in_place(written, directory, &temporary, name, path)?;
        self.copied.report.files += 1;
        self.copied.report.bytes += u64::try_from(found.st_size).unwrap_or(0);
        Ok(())
    }

    fn link(
        &mut self,
        link: &[u8],
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> Result<(), StoreError> {
        let existing = self.existing(directory, name, path)?;
        if self.manner.leave_equal
            && existing.is_some_and(|old| file_type(&old) == FileType::Symlink)
            && rustix::fs::readlinkat(directory, name, Vec::new())
                .is_ok_and(|old| old.to_bytes() == link)
        {
            self.copied.unchanged += 1;
            return Ok(());
        }
        let temporary = self.temporary_name();
        rustix::fs::symlinkat(link, directory, &temporary).context("creating", self.host(path))?;
        self.put_in_place(Ok(()), directory, &temporary, name, path)?;
        self.copied.report.symlinks += 1;
        Ok(())
    }

    fn temporary_name(&mut self) -> String {
        self.counter += 1;
        format!("{}-{}", self.temporary, self.counter)
    }

    /// Gives what was written its name, or removes it.
    fn put_in_place(
        &self,
        written: io::Result<()>,
        directory: BorrowedFd<'_>,
        temporary: &str,
        name: &CStr,
        path: &[u8],
    ) -> Result<(), StoreError> {
        let placed = written.context("writing", self.host(path)).and_then(|()| {
            rustix::fs::renameat(directory, temporary, directory, name)
                .context("replacing", self.host(path))
        });
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(directory, temporary, AtFlags::empty());
        }
        placed
    }

    /// What is there already, and may be replaced.
    fn existing(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> Result<Option<Stat>, StoreError> {
        let found = match stat(directory, name) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.context("examining", self.host(path))?,
        };
        let reason = match file_type(&found) {
            FileType::RegularFile => return Ok(Some(found)),
            FileType::Symlink if self.manner.leave_equal => return Ok(Some(found)),
            FileType::Symlink => "it exists and is a symbolic link",
            FileType::Directory => "it exists and is a directory",
            _ => "it exists and is not a regular file",
        };
        Err(self.refuse(path, reason))
    }

    fn is_same_content(
        &self,
        (from, size): (&File, i64),
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> Result<bool, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let existing = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            // Whoever cannot read it may still replace it.
            Err(Errno::ACCESS | Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(false),
            other => File::from(other.context("opening", self.host(path))?),
        };
        let same = is_same(from, &existing, size).context("comparing", self.host(path))?;
        if !same {
            io::Seek::rewind(&mut { from }).context("comparing", self.host(path))?;
        }
        Ok(same)
    }

    /// To be called at the end. Deepest directories first, so that one without write permission is
    /// closed last.
    pub(super) fn finish(mut self) -> Result<Copied, StoreError> {
        let mut made = std::mem::take(&mut self.directories);
        made.sort_by(|a, b| b.0.cmp(&a.0));
        for (path, found) in made {
            let directory = self.open(&path)?;
            let mut mode = self.mode(&found);
            if self.manner.leave_equal {
                mode |= Mode::RWXU;
            }
            rustix::fs::fchmod(&directory, mode).context("changing", self.host(&path))?;
            if !self.manner.leave_equal {
                rustix::fs::futimens(&directory, &times(&found))
                    .context("changing", self.host(&path))?;
            }
        }
        Ok(self.copied)
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd, StoreError> {
        match open_directory(self.root.as_fd(), path) {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                Err(self.refuse(path, "a part of it is not a directory"))
            }
            other => other.context("opening", self.host(path)),
        }
    }

    fn mode(&self, found: &Stat) -> Mode {
        let kept = if self.manner.special_bits {
            0o7777
        } else {
            0o777
        };
        Mode::from_raw_mode(found.st_mode & kept)
    }

    fn host(&self, path: &[u8]) -> PathBuf {
        self.parent.join(OsString::from_vec(path.to_vec()))
    }

    fn refuse(&self, path: &[u8], reason: &str) -> StoreError {
        StoreError::invalid(self.host(path).display().to_string(), reason)
    }
}

fn read_error(path: &[u8], error: io::Error) -> StoreError {
    guest_error(&absolute(b"", path), error)
}
