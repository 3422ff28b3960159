//! Bringing files out of a snapshot.
//!
//! What comes out was made by a guest that may want to harm whoever takes it. Nothing is written
//! through a symbolic link below the destination, no device node is made, set-id and sticky bits
//! are dropped, and everything belongs to the caller.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hm_vm_core::SnapshotId;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, StoreError};
use crate::store::Store;
use crate::tree::attributes::times;
use crate::tree::copy::copy_content;
use crate::tree::directory::{file_type, join, open_child, open_directory, stat};
use crate::view::View;
use crate::view::merged::{Directory, Leaf, Merged, Node};
use crate::view::reader::guest_error;
use crate::view::resolve::resolve;

/// How to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Keep set-user-id, set-group-id and sticky bits.
    pub keep_special_bits: bool,
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Regular files.
    pub files: u64,
    /// Directories, those that existed included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of the regular files.
    pub bytes: u64,
    /// Guest paths that were left out: devices, fifos and sockets.
    pub skipped: Vec<PathBuf>,
}

impl Store {
    /// Copies a file or directory of a snapshot to the host. Into `host_dest/name` where
    /// `host_dest` is a directory, else as `host_dest` itself, whose parent must exist. Files that
    /// exist are replaced, directories merged. Symbolic links are copied as they are; the last
    /// component of `guest_path` is followed, inside the snapshot.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] when there is nothing at `guest_path`, or the destination has
    /// a symbolic link or another type of file where something is to be written; or a failure to
    /// read or write. What was copied before stays.
    pub fn copy_out(
        &self,
        snapshot: &SnapshotId,
        guest_path: &Path,
        host_dest: &Path,
    ) -> Result<CopyReport, StoreError> {
        self.copy_out_with(snapshot, guest_path, host_dest, CopyOptions::default())
    }

    /// As [`copy_out`](Self::copy_out), with options.
    ///
    /// # Errors
    ///
    /// As `copy_out`.
    pub fn copy_out_with(
        &self,
        snapshot: &SnapshotId,
        guest_path: &Path,
        host_dest: &Path,
        options: CopyOptions,
    ) -> Result<CopyReport, StoreError> {
        let view = self.view(snapshot)?;
        let dest = std::path::absolute(host_dest).context("finding", host_dest)?;
        self.core()
            .files
            .run(|| copy(&view, guest_path, &dest, options))?
    }
}

fn copy(
    view: &View,
    guest_path: &Path,
    dest: &Path,
    options: CopyOptions,
) -> Result<CopyReport, StoreError> {
    let found = resolve(&view.tree, guest_path.as_os_str().as_bytes(), true)
        .and_then(|found| found.node.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|error| guest_error(guest_path, error))?;
    let (parent, name) = destination(dest, guest_path)?;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&parent, flags, Mode::empty()).context("opening", &parent)?;
    let mut copier = Copier {
        tree: &view.tree,
        root,
        parent,
        options,
        report: CopyReport::default(),
        directories: Vec::new(),
    };
    let name = CString::new(name.into_vec())
        .map_err(|_| StoreError::invalid(dest.display().to_string(), "it contains a NUL byte"))?;
    match found {
        Node::Leaf(leaf) => copier.leaf(&leaf, b"", &name)?,
        Node::Directory(directory) => copier.tree(directory, &name)?,
    }
    copier.finish_directories()?;
    Ok(copier.report)
}

/// Directory and name to write to.
fn destination(dest: &Path, guest_path: &Path) -> Result<(PathBuf, OsString), StoreError> {
    let invalid = |reason| StoreError::invalid(dest.display().to_string(), reason);
    // A directory of the caller's choice, symbolic links in it included.
    if dest.is_dir() {
        return Ok(match guest_path.file_name() {
            Some(name) => (dest.to_owned(), name.to_owned()),
            None => (dest.to_owned(), ".".into()),
        });
    }
    match (dest.parent(), dest.file_name()) {
        (Some(parent), Some(name)) if parent.is_dir() => Ok((parent.to_owned(), name.to_owned())),
        (Some(_), Some(_)) => Err(invalid("its parent directory does not exist")),
        _ => Err(invalid("it is not a path that something can be written to")),
    }
}

struct Copier<'a> {
    tree: &'a Merged,
    /// The directory in which the copy is made; everything is opened relative to it.
    root: OwnedFd,
    parent: PathBuf,
    options: CopyOptions,
    report: CopyReport,
    /// Directories made or entered, whose modes and times are set last.
    directories: Vec<(Vec<u8>, Stat)>,
}

impl Copier<'_> {
    fn tree(&mut self, top: Directory, name: &CStr) -> Result<(), StoreError> {
        let target = match name.to_bytes() {
            b"." => Vec::new(),
            name => name.to_vec(),
        };
        let mut todo = vec![(top, target)];
        while let Some((directory, target)) = todo.pop() {
            self.make_directory(&directory, &target)?;
            let open = self.tree.open_directory(&directory);
            let entries = open
                .and_then(|open| open.entries())
                .map_err(|error| self.read_error(&directory.path, error))?;
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

    fn make_directory(&mut self, directory: &Directory, target: &[u8]) -> Result<(), StoreError> {
        self.report.directories += 1;
        let found = self
            .tree
            .stat_directory(directory)
            .map_err(|error| self.read_error(&directory.path, error))?;
        if target.is_empty() {
            return Ok(());
        }
        let (above, name) = match target.iter().rposition(|&byte| byte == b'/') {
            Some(at) => (&target[..at], &target[at + 1..]),
            None => (&target[..0], target),
        };
        let name = CString::new(name).unwrap_or_default();
        let above = self.open(above)?;
        match rustix::fs::mkdirat(&above, &name, Mode::RWXU) {
            Ok(()) => self.directories.push((target.to_vec(), found)),
            Err(Errno::EXIST) => match open_child(above.as_fd(), &name) {
                Ok(_) => {}
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Err(self.refuse(target, "it exists and is not a directory"));
                }
                Err(errno) => return Err(errno).context("opening", self.host(target)),
            },
            Err(errno) => return Err(errno).context("creating", self.host(target)),
        }
        Ok(())
    }

    fn leaf(&mut self, leaf: &Leaf, target: &[u8], name: &CStr) -> Result<(), StoreError> {
        let source = join(&leaf.directory, leaf.name.to_bytes());
        let found = self
            .tree
            .stat(&Node::Leaf(leaf.clone()))
            .map_err(|error| self.read_error(&source, error))?;
        let path = join(target, name.to_bytes());
        let kind = file_type(&found);
        if !matches!(kind, FileType::RegularFile | FileType::Symlink) {
            let mut absolute = vec![b'/'];
            absolute.extend_from_slice(&source);
            self.report
                .skipped
                .push(OsString::from_vec(absolute).into());
            return Ok(());
        }
        let directory = self.open(target)?;
        self.make_room(directory.as_fd(), name, &path)?;
        if kind == FileType::Symlink {
            let link = self
                .tree
                .read_link(leaf)
                .map_err(|error| self.read_error(&source, error))?;
            rustix::fs::symlinkat(link, &directory, name).context("creating", self.host(&path))?;
            self.report.symlinks += 1;
            return Ok(());
        }
        let from = self
            .tree
            .open_file(leaf)
            .map_err(|error| self.read_error(&source, error))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let to = rustix::fs::openat(&directory, name, flags | OFlags::CLOEXEC, mode)
            .context("creating", self.host(&path))?;
        let (from, to) = (File::from(from), File::from(to));
        copy_content(&from, &to).context("writing", self.host(&path))?;
        rustix::fs::fchmod(&to, self.mode(&found)).context("changing", self.host(&path))?;
        rustix::fs::futimens(&to, &times(&found)).context("changing", self.host(&path))?;
        self.report.files += 1;
        self.report.bytes += u64::try_from(found.st_size).unwrap_or(0);
        Ok(())
    }

    /// Removes a regular file that is in the way, and refuses anything else.
    fn make_room(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> Result<(), StoreError> {
        let found = match stat(directory, name) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.context("examining", self.host(path))?,
        };
        let reason = match file_type(&found) {
            FileType::RegularFile => {
                return rustix::fs::unlinkat(directory, name, AtFlags::empty())
                    .context("replacing", self.host(path));
            }
            FileType::Symlink => "it exists and is a symbolic link",
            FileType::Directory => "it exists and is a directory",
            _ => "it exists and is not a regular file",
        };
        Err(self.refuse(path, reason))
    }

    /// Deepest first, so that a directory without write permission is closed last.
    fn finish_directories(&mut self) -> Result<(), StoreError> {
        let mut made = std::mem::take(&mut self.directories);
        made.sort_by(|a, b| b.0.cmp(&a.0));
        for (path, found) in made {
            let directory = self.open(&path)?;
            rustix::fs::fchmod(&directory, self.mode(&found))
                .context("changing", self.host(&path))?;
            rustix::fs::futimens(&directory, &times(&found))
                .context("changing", self.host(&path))?;
        }
        Ok(())
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
        let kept = if self.options.keep_special_bits {
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

    #[expect(clippy::unused_self, reason = "reads as the others do")]
    fn read_error(&self, path: &[u8], error: io::Error) -> StoreError {
        let mut absolute = vec![b'/'];
        absolute.extend_from_slice(path);
        guest_error(Path::new(&OsString::from_vec(absolute)), error)
    }
}
