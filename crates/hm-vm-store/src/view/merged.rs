//! Layers seen as one tree.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::tree::directory::{
    file_type, is_opaque, is_whiteout, join, list, open_child, open_directory, stat,
};

/// Layers, opened.
#[derive(Debug)]
pub(crate) struct Merged {
    /// Topmost first.
    roots: Vec<OwnedFd>,
    /// What tells that two trees have the same layer: its number, 0 for the host's root.
    ids: Vec<i64>,
}

/// A merged directory: its path, and which layers have a part of it, topmost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Relative to the root, which is empty. No component is a symbolic link in any of the layers.
    pub(crate) path: Vec<u8>,
    pub(crate) parts: Vec<usize>,
}

/// Anything but a directory.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// Path of the directory that it is in.
    pub(crate) directory: Vec<u8>,
    pub(crate) name: CString,
    /// The layer that has it.
    pub(crate) part: usize,
}

/// What is at a path.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Directory(Directory),
    Leaf(Leaf),
}

/// A merged directory with its parts open.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    pub(crate) path: Vec<u8>,
    parts: Vec<(usize, OwnedFd)>,
}

impl Merged {
    /// Opens layers, topmost first, each with what identifies it.
    pub(crate) fn open<'a>(layers: impl IntoIterator<Item = (i64, &'a Path)>) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let (mut roots, mut ids) = (Vec::new(), Vec::new());
        for (id, path) in layers {
            roots.push(rustix::fs::open(path, flags, Mode::empty())?);
            ids.push(id);
        }
        Ok(Self { roots, ids })
    }

    /// The root directory.
    pub(crate) fn root(&self) -> Directory {
        Directory {
            path: Vec::new(),
            parts: (0..self.roots.len()).collect(),
        }
    }

    /// What tells layers apart across trees.
    pub(crate) fn id(&self, part: usize) -> i64 {
        self.ids[part]
    }

    /// Opens all parts of a directory.
    pub(crate) fn open_directory(&self, directory: &Directory) -> io::Result<OpenDirectory> {
        let mut parts = Vec::with_capacity(directory.parts.len());
        for &part in &directory.parts {
            match self.open_part(part, &directory.path) {
                Ok(fd) => parts.push((part, fd)),
                // Another file system mounted on the host: an overlay does not show its content.
                Err(Errno::XDEV) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(OpenDirectory {
            path: directory.path.clone(),
            parts,
        })
    }

    fn open_part(&self, part: usize, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let root = self.roots[part].as_fd();
        if self.ids[part] != 0 || path.is_empty() {
            return open_directory(root, path);
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
    }

    /// Opens the topmost part of a directory, whose attributes are those of the merged one.
    pub(crate) fn open_top(&self, directory: &Directory) -> io::Result<OwnedFd> {
        let part = directory.parts.first().copied().unwrap_or(0);
        match self.open_part(part, &directory.path) {
            Err(Errno::XDEV) => Ok(open_directory(self.roots[part].as_fd(), &directory.path)?),
            other => Ok(other?),
        }
    }

    /// Attributes of a directory.
    pub(crate) fn stat_directory(&self, directory: &Directory) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(self.open_top(directory)?)?)
    }

    /// Attributes of a node.
    pub(crate) fn stat(&self, node: &Node) -> io::Result<Stat> {
        match node {
            Node::Directory(directory) => self.stat_directory(directory),
            Node::Leaf(leaf) => {
                let parent = self.open_part(leaf.part, &leaf.directory)?;
                Ok(stat(parent.as_fd(), &leaf.name)?)
            }
        }
    }

    /// Opens a regular file for reading. Fails on anything else.
    pub(crate) fn open_file(&self, leaf: &Leaf) -> io::Result<OwnedFd> {
        let parent = self.open_part(leaf.part, &leaf.directory)?;
        // Not to hang on a fifo.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if file_type(&stat(parent.as_fd(), &leaf.name)?) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        let file = rustix::fs::openat(&parent, &leaf.name, flags, Mode::empty())?;
        if file_type(&rustix::fs::fstat(&file)?) != FileType::RegularFile {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(file)
    }

    /// Target of a symbolic link.
    pub(crate) fn read_link(&self, leaf: &Leaf) -> io::Result<Vec<u8>> {
        let parent = self.open_part(leaf.part, &leaf.directory)?;
        let target = rustix::fs::readlinkat(&parent, &leaf.name, Vec::new())?;
        Ok(target.into_bytes())
    }
}

impl OpenDirectory {
    /// Looks one name up, following nothing.
    pub(crate) fn child(&self, name: &CStr) -> io::Result<Option<Node>> {
        let mut parts: Vec<usize> = Vec::new();
        for (index, (part, fd)) in self.parts.iter().enumerate() {
            let found = match stat(fd.as_fd(), name) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            if file_type(&found) == FileType::Directory {
                parts.push(*part);
                if index + 1 < self.parts.len() && self.hides(fd, name)? {
                    break;
                }
            } else if !parts.is_empty() || is_whiteout(&found) {
                break;
            } else {
                return Ok(Some(self.leaf(name, *part)));
            }
        }
        Ok((!parts.is_empty()).then(|| self.directory(name, parts)))
    }

    /// All entries, sorted by name.
    pub(crate) fn entries(&self) -> io::Result<BTreeMap<CString, Node>> {
        let mut slots: BTreeMap<CString, Slot> = BTreeMap::new();
        for (index, (part, fd)) in self.parts.iter().enumerate() {
            let last = index + 1 == self.parts.len();
            for (name, kind) in list(fd.as_fd())? {
                match slots.get_mut(&name) {
                    Some(Slot::Directory { closed: true, .. } | Slot::Leaf(_) | Slot::Nothing) => {}
                    Some(Slot::Directory { parts, closed }) => {
                        if self.is_directory(fd, &name, kind)? {
                            parts.push(*part);
                            *closed = !last && self.hides(fd, &name)?;
                        } else {
                            *closed = true;
                        }
                    }
                    None => {
                        let slot = self.first_slot(*part, fd, &name, kind, last)?;
                        slots.insert(name, slot);
                    }
                }
            }
        }
        let node = |(name, slot): (CString, Slot)| {
            let node = match slot {
                Slot::Nothing => return None,
                Slot::Leaf(part) => self.leaf(&name, part),
                Slot::Directory { parts, .. } => self.directory(&name, parts),
            };
            Some((name, node))
        };
        Ok(slots.into_iter().filter_map(node).collect())
    }

    fn first_slot(
        &self,
        part: usize,
        fd: &OwnedFd,
        name: &CStr,
        kind: FileType,
        last: bool,
    ) -> io::Result<Slot> {
        if matches!(kind, FileType::CharacterDevice | FileType::Unknown) {
            match stat(fd.as_fd(), name) {
                Ok(found) if is_whiteout(&found) => return Ok(Slot::Nothing),
                // Gone meanwhile: the host's own files change.
                Err(Errno::NOENT) => return Ok(Slot::Nothing),
                other => other.map(|_| ())?,
            }
        }
        if self.is_directory(fd, name, kind)? {
            return Ok(Slot::Directory {
                parts: vec![part],
                closed: !last && self.hides(fd, name)?,
            });
        }
        Ok(Slot::Leaf(part))
    }

    fn is_directory(&self, fd: &OwnedFd, name: &CStr, kind: FileType) -> io::Result<bool> {
        Ok(match kind {
            FileType::Unknown => file_type(&stat(fd.as_fd(), name)?) == FileType::Directory,
            known => known == FileType::Directory,
        })
    }

    /// Whether the directory `name` of one layer hides those of lower layers.
    fn hides(&self, fd: &OwnedFd, name: &CStr) -> io::Result<bool> {
        Ok(is_opaque(open_child(fd.as_fd(), name)?.as_fd()))
    }

    fn leaf(&self, name: &CStr, part: usize) -> Node {
        Node::Leaf(Leaf {
            directory: self.path.clone(),
            name: name.to_owned(),
            part,
        })
    }

    fn directory(&self, name: &CStr, parts: Vec<usize>) -> Node {
        Node::Directory(Directory {
            path: join(&self.path, name.to_bytes()),
            parts,
        })
    }
}

enum Slot {
    Directory { parts: Vec<usize>, closed: bool },
    Leaf(usize),
    Nothing,
}
