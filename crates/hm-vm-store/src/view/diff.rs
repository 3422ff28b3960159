//! Comparing the files of two snapshots.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use hm_vm_core::SnapshotId;
use rustix::fs::{FileType, Stat};

use crate::error::{Context, StoreError};
use crate::store::Store;
use crate::tree::attributes::extended;
use crate::tree::directory::file_type;
use crate::view::View;
use crate::view::merged::{Directory, Merged, Node};
use crate::view::reader::absolute;

const BUFFER: usize = 64 << 10;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is only in the second tree.
    Added,
    /// It differs: in type, mode, owner, content, link target or extended attributes. A
    /// modification time alone is no difference, nor are the entries of a directory.
    Changed,
    /// It is only in the first tree.
    Deleted,
}

/// A difference between two trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// To which absolute path; its name may be any bytes.
    pub path: PathBuf,
}

impl Store {
    /// What is different in the files of `to`, compared to those of `from`, sorted by path. What
    /// is below an added or deleted directory is listed as well.
    ///
    /// # Errors
    ///
    /// [`StoreError::SnapshotNotFound`], or a failure to read.
    pub fn diff(&self, from: &SnapshotId, to: &SnapshotId) -> Result<Vec<Change>, StoreError> {
        let (from, to) = (self.view(from)?, self.view(to)?);
        View::changes(self, &from, &to)
    }
}

impl View {
    /// As [`Store::diff`], of any two views of one store.
    ///
    /// # Errors
    ///
    /// A failure to read.
    pub fn changes(store: &Store, from: &View, to: &View) -> Result<Vec<Change>, StoreError> {
        let compare = || -> io::Result<Vec<Change>> {
            let mut comparison = Comparison {
                from: &from.tree,
                to: &to.tree,
                changes: Vec::new(),
                todo: vec![(from.tree.root(), to.tree.root())],
            };
            let roots = (
                Node::Directory(from.tree.root()),
                Node::Directory(to.tree.root()),
            );
            let (old, new) = (from.tree.stat(&roots.0)?, to.tree.stat(&roots.1)?);
            if !same_attributes(&old, &new) {
                comparison.add(ChangeKind::Changed, b"", b"");
            }
            while let Some((old, new)) = comparison.todo.pop() {
                comparison.directories(&old, &new)?;
            }
            comparison.changes.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(comparison.changes)
        };
        let changes = store.core().files.run(compare)?;
        changes.context("comparing", Path::new("/"))
    }
}

struct Comparison<'a> {
    from: &'a Merged,
    to: &'a Merged,
    changes: Vec<Change>,
    todo: Vec<(Directory, Directory)>,
}

impl Comparison<'_> {
    fn directories(&mut self, old: &Directory, new: &Directory) -> io::Result<()> {
        let here = new.path.clone();
        let mut before = self.from.open_directory(old)?.entries()?;
        for (name, new) in self.to.open_directory(new)?.entries()? {
            match before.remove(&name) {
                None => self.whole(ChangeKind::Added, &here, name.to_bytes(), new)?,
                Some(old) => self.entry(&here, name.to_bytes(), old, new)?,
            }
        }
        for (name, old) in before {
            self.whole(ChangeKind::Deleted, &here, name.to_bytes(), old)?;
        }
        Ok(())
    }

    fn entry(&mut self, here: &[u8], name: &[u8], old: Node, new: Node) -> io::Result<()> {
        if self.same_layers(&old, &new) {
            return Ok(());
        }
        let stats = (self.from.stat(&old)?, self.to.stat(&new)?);
        if !self.same(&stats, &old, &new)? {
            self.add(ChangeKind::Changed, here, name);
        }
        match (old, new) {
            (Node::Directory(old), Node::Directory(new)) => self.todo.push((old, new)),
            (Node::Directory(old), Node::Leaf(_)) => {
                self.below(ChangeKind::Deleted, self.from, old)?;
            }
            (Node::Leaf(_), Node::Directory(new)) => {
                self.below(ChangeKind::Added, self.to, new)?;
            }
            (Node::Leaf(_), Node::Leaf(_)) => {}
        }
        Ok(())
    }

    /// Whether both come from the same layers: then they, and all below, are the same.
    fn same_layers(&self, old: &Node, new: &Node) -> bool {
        match (old, new) {
            (Node::Leaf(old), Node::Leaf(new)) => self.from.id(old.part) == self.to.id(new.part),
            (Node::Directory(old), Node::Directory(new)) => {
                let old = old.parts.iter().map(|&part| self.from.id(part));
                old.eq(new.parts.iter().map(|&part| self.to.id(part)))
            }
            _ => false,
        }
    }

    fn same(&self, (before, after): &(Stat, Stat), old: &Node, new: &Node) -> io::Result<bool> {
        // Merged and inject layers share files by hard links.
        if (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino) {
            return Ok(true);
        }
        if !same_attributes(before, after) {
            return Ok(false);
        }
        match (old, new) {
            (Node::Directory(old), Node::Directory(new)) => {
                let old = self.from.open_top(old)?;
                let new = self.to.open_top(new)?;
                Ok(extended(old.as_fd())? == extended(new.as_fd())?)
            }
            (Node::Leaf(old), Node::Leaf(new)) => match file_type(after) {
                FileType::Symlink => Ok(self.from.read_link(old)? == self.to.read_link(new)?),
                FileType::RegularFile => same_files(
                    self.from.open_file(old)?.into(),
                    self.to.open_file(new)?.into(),
                ),
                _ => Ok(before.st_rdev == after.st_rdev),
            },
            _ => Ok(false),
        }
    }

    /// An entry that one tree does not have, with all below it.
    fn whole(&mut self, kind: ChangeKind, here: &[u8], name: &[u8], node: Node) -> io::Result<()> {
        self.add(kind, here, name);
        let tree = match kind {
            ChangeKind::Deleted => self.from,
            _ => self.to,
        };
        match node {
            Node::Directory(directory) => self.below(kind, tree, directory),
            Node::Leaf(_) => Ok(()),
        }
    }

    fn below(&mut self, kind: ChangeKind, tree: &Merged, top: Directory) -> io::Result<()> {
        let mut todo = vec![top];
        while let Some(directory) = todo.pop() {
            for (name, node) in tree.open_directory(&directory)?.entries()? {
                self.add(kind, &directory.path, name.to_bytes());
                if let Node::Directory(child) = node {
                    todo.push(child);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, kind: ChangeKind, here: &[u8], name: &[u8]) {
        self.changes.push(Change {
            kind,
            path: absolute(here, name),
        });
    }
}

fn same_attributes(old: &Stat, new: &Stat) -> bool {
    let size = |stat: &Stat| match file_type(stat) {
        FileType::RegularFile | FileType::Symlink => stat.st_size,
        _ => 0,
    };
    (old.st_mode, old.st_uid, old.st_gid, size(old))
        == (new.st_mode, new.st_uid, new.st_gid, size(new))
}

/// Compares content and extended attributes.
fn same_files(mut old: File, mut new: File) -> io::Result<bool> {
    if extended(old.as_fd())? != extended(new.as_fd())? {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let read = old.read(&mut left)?;
        if read == 0 {
            return Ok(new.read(&mut right)? == 0);
        }
        match new.read_exact(&mut right[..read]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if left[..read] != right[..read] {
            return Ok(false);
        }
    }
}
