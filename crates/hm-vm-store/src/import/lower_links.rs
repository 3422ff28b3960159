//! Hard links of a layer to files of the layers below.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::layer_owner::may_keep;
use super::layer_report::{LayerOptions, LowerLink};
use super::layer_writer::{LayerWriter, Linked};
use super::root_writer::Attributes;
use super::way::open_within;
use super::{ImportError, xattrs::Xattr};
use crate::beneath::{DIRECTORY, as_path, mtime_ns, open_root, split};
use crate::tree::attributes;
use crate::tree::copy::copy_content;
use crate::tree::directory::{file_type, is_opaque, is_whiteout};
use crate::view::merged::{Directory, Leaf, Merged, Node};
use crate::view::resolve::{Resolved, look_up, resolve};

/// Makes hard links to what the layers below have. `lower` are their trees, topmost first. The files are copied
/// into the layer first, as overlayfs does when one is written to: to where they are below, with the directories
/// that lead there, unless this layer hides them there.
///
/// # Errors
///
/// [`ImportError::InvalidInput`] when there is nothing to link to, or a failure of the system. `layer` is
/// left half-done then.
pub fn link_from_lower(
    layer: &Path,
    links: &[LowerLink],
    lower: &[&Path],
    options: &LayerOptions,
) -> Result<(), ImportError> {
    let root = open_root(layer)?;
    // No number is 0: that stands for the host's root.
    let numbered = (1..).zip(lower.iter().copied());
    let tree = Merged::open(numbered)
        .map_err(|error| ImportError::file("opening the layers below", layer, error))?;
    let mut linker = Linker {
        root: root.as_fd(),
        tree: &tree,
        writer: LayerWriter::resume(&root, options)?,
        copies: HashMap::new(),
    };
    for link in links {
        linker.link(link)?;
    }
    linker.writer.finish().map(drop)
}

struct Linker<'a> {
    root: BorrowedFd<'a>,
    tree: &'a Merged,
    writer: LayerWriter<'a>,
    /// Where in the layer the copy of a file is, by its layer and inode number.
    copies: HashMap<(usize, u64), Vec<u8>>,
}

impl Linker<'_> {
    fn link(&mut self, link: &LowerLink) -> Result<(), ImportError> {
        let LowerLink {
            path,
            target,
            attributes,
        } = link;
        if self.own(path)?.is_some_and(|stat| !is_whiteout(&stat)) {
            // A later entry of the archive.
            return Ok(());
        }
        let linked = match self.own(target)? {
            Some(stat) if !is_whiteout(&stat) => target.clone(),
            _ => self.copied(link)?,
        };
        if self.writer.hard_link(path, &linked, attributes)? == Linked::Done {
            return Ok(());
        }
        Err(missing(link))
    }

    /// What this layer itself has at a path.
    fn own(&self, path: &[u8]) -> Result<Option<Stat>, ImportError> {
        let (parent, name) = split(path);
        let found = open_within(self.root, parent, DIRECTORY)
            .and_then(|parent| rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW));
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(ImportError::file(
                "reading the layer's",
                as_path(path),
                errno,
            )),
        }
    }

    /// Path, in this layer, of a copy of what the link leads to.
    fn copied(&mut self, link: &LowerLink) -> Result<Vec<u8>, ImportError> {
        let reading = |error| reading(&link.target, error);
        let found = match resolve(self.tree, &link.target, false) {
            // A file, or a circle of links, on the way.
            Err(error) if is_astray(&error) => return Err(missing(link)),
            found => found.map_err(reading)?,
        };
        let Resolved { path, node } = found;
        let Some(Node::Leaf(leaf)) = node else {
            return Err(missing(link));
        };
        let stat = self.tree.stat(&Node::Leaf(leaf.clone())).map_err(reading)?;
        let key = (leaf.part, stat.st_ino);
        if let Some(copy) = self.copies.get(&key) {
            return Ok(copy.clone());
        }
        let place = match self.is_hidden(&path)? {
            true => link.path.clone(),
            false => {
                self.make_parents(&path)?;
                path
            }
        };
        self.copy(&leaf, &stat, &place)?;
        self.copies.insert(key, place.clone());
        Ok(place)
    }

    /// Whether this layer hides what the layers below have at a path.
    fn is_hidden(&self, path: &[u8]) -> Result<bool, ImportError> {
        for end in ends(path) {
            let Some(stat) = self.own(&path[..end])? else {
                return Ok(false);
            };
            if end == path.len() || file_type(&stat) != FileType::Directory {
                return Ok(true);
            }
            let open = open_within(self.root, &path[..end], DIRECTORY);
            if open.is_ok_and(|directory| is_opaque(directory.as_fd())) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the directories that lead to a path, as they are below.
    fn make_parents(&mut self, path: &[u8]) -> Result<(), ImportError> {
        for end in ends(split(path).0) {
            let directory = &path[..end];
            if self.own(directory)?.is_some() {
                continue;
            }
            let reading = |error| reading(directory, error);
            if let Some(Node::Directory(found)) = look_up(self.tree, directory).map_err(reading)? {
                let attributes = self.of_directory(&found).map_err(reading)?;
                self.writer.directory(directory, &attributes)?;
            }
        }
        Ok(())
    }

    fn of_directory(&self, directory: &Directory) -> io::Result<Attributes> {
        let open = self.tree.open_top(directory)?;
        let stat = rustix::fs::fstat(&open)?;
        Ok(attributes_of(&stat, kept(open.as_fd())?))
    }

    fn copy(&mut self, leaf: &Leaf, stat: &Stat, place: &[u8]) -> Result<(), ImportError> {
        let reading = |error| reading(place, error);
        match file_type(stat) {
            FileType::RegularFile => {
                let source = self.tree.open_file(leaf).map_err(reading)?;
                let attributes = attributes_of(stat, kept(source.as_fd()).map_err(reading)?);
                self.writer.file(place, &attributes, &mut |file| {
                    copy_file(&source, file, place)
                })
            }
            FileType::Symlink => {
                let target = self.tree.read_link(leaf).map_err(reading)?;
                let attributes = attributes_of(stat, Vec::new());
                self.writer.symlink(place, &target, &attributes)
            }
            kind => {
                let attributes = attributes_of(stat, Vec::new());
                self.writer
                    .node(place, kind, stat.st_rdev, &attributes)
                    .map(drop)
            }
        }
    }
}

/// Lengths of a path's beginnings, shortest first, itself at the end.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> {
    let slashes = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
    let own = (!path.is_empty()).then_some(path.len());
    slashes.map(|(at, _)| at).chain(own)
}

fn copy_file(source: &OwnedFd, file: &OwnedFd, place: &[u8]) -> Result<(), ImportError> {
    let copy = || {
        copy_content(
            &File::from(source.try_clone()?),
            &File::from(file.try_clone()?),
        )
    };
    copy().map_err(|error| ImportError::file("writing the layer's", as_path(place), error))
}

fn kept(file: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    let found = attributes::extended(file)?.into_iter();
    let found = found.map(|(name, value)| (name.into_bytes(), value));
    Ok(found.filter(|(name, _)| may_keep(name)).collect())
}

fn attributes_of(stat: &Stat, xattrs: Vec<Xattr>) -> Attributes {
    Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_ns: Some(mtime_ns(stat)),
        xattrs,
    }
}

fn reading(path: &[u8], error: io::Error) -> ImportError {
    ImportError::file("reading, in a layer below,", as_path(path), error)
}

fn is_astray(error: &io::Error) -> bool {
    [Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn missing(link: &LowerLink) -> ImportError {
    let target = as_path(&link.target).display();
    let reason = format!("it is a hard link to {target}, which is not there");
    ImportError::invalid(as_path(&link.path), reason)
}
