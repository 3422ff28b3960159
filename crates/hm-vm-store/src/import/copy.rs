//! Copying a root directory.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hm_vm_core::ProgressUnit;
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::notices::Lost;
use super::root_writer::{Attributes, RootWriter};
use super::xattrs;
use super::{ImportError, ImportOptions, ImportReport};
use crate::beneath::{
    DIRECTORY, READ, as_path, join, mtime_ns, open_beneath, open_on_mount, open_root, read_names,
};
use crate::content::{BUFFER_BYTES, CopyFailure, Reflink, copy_file};

/// What an owner that a user namespace does not know reads as there.
const OVERFLOW_ID: u32 = 65534;

/// Copies the root file system in the directory `source` into `dest`, an existing empty
/// directory: contents, holes, modes, owners, modification times, hard links, and the extended
/// attributes `user.*` (not `user.overlay.*`) and `security.capability`. What is mounted below
/// `source` is left out (a mounted directory stays as an empty one); so are sockets, with a
/// notice.
///
/// Starts no thread: it can be called inside `UserNamespace::run`.
///
/// # Errors
///
/// [`ImportError`]; `dest` is left half-written then.
pub fn copy_directory(
    source: &Path,
    dest: &Path,
    options: &ImportOptions,
) -> Result<ImportReport, ImportError> {
    let source_root = open_root(source).map_err(|failure| match failure.source.kind() {
        std::io::ErrorKind::NotADirectory => ImportError::invalid(source, "it is not a directory"),
        _ => ImportError::from(failure),
    })?;
    let root = open_root(dest)?;
    options.progress.begin(ProgressUnit::Files, None);
    let mut copier = Copier {
        source,
        root: &source_root,
        options,
        writer: RootWriter::new(&root, options),
        excluded: excluded(options, dest),
        linked: HashMap::new(),
        reflink: Reflink::new(),
        buffer: vec![0; BUFFER_BYTES],
        names: Vec::new(),
        left: vec![Vec::new()],
    };
    while let Some(path) = copier.left.pop() {
        copier.directory(&path)?;
    }
    if copier.writer.entries() == 0 {
        return Err(ImportError::invalid(source, "no entries in the directory"));
    }
    copier.writer.finish()
}

/// Device and inode numbers of directories that are left out.
fn excluded(options: &ImportOptions, dest: &Path) -> HashSet<(u64, u64)> {
    let paths = options.exclude.iter().map(std::path::PathBuf::as_path);
    paths
        .chain([dest])
        .filter_map(|path| rustix::fs::stat(path).ok())
        .map(|stat| (stat.st_dev, stat.st_ino))
        .collect()
}

struct Copier<'a> {
    source: &'a Path,
    root: &'a OwnedFd,
    options: &'a ImportOptions,
    writer: RootWriter<'a>,
    excluded: HashSet<(u64, u64)>,
    /// First path of each file that has several, by device and inode number.
    linked: HashMap<(u64, u64), Vec<u8>>,
    reflink: Reflink,
    buffer: Vec<u8>,
    names: Vec<u8>,
    left: Vec<Vec<u8>>,
}

impl Copier<'_> {
    fn reading(&self, path: &[u8], errno: Errno) -> ImportError {
        ImportError::file("reading", &self.source.join(as_path(path)), errno)
    }

    fn directory(&mut self, path: &[u8]) -> Result<(), ImportError> {
        let (directory, mounted) = match open_on_mount(self.root, path, DIRECTORY) {
            Err(Errno::XDEV) => (open_beneath(self.root, path, DIRECTORY), true),
            directory => (directory, false),
        };
        let directory = directory.map_err(|errno| self.reading(path, errno))?;
        let stat = rustix::fs::fstat(&directory).map_err(|errno| self.reading(path, errno))?;
        if !path.is_empty() && self.excluded.contains(&(stat.st_dev, stat.st_ino)) {
            self.writer.notices.lost(Lost::Excluded, path);
            return Ok(());
        }
        if !path.is_empty() {
            self.writer.count_entry()?;
            self.options.progress.add(1);
        }
        let attributes = self.attributes(path, &stat, Some(&directory))?;
        self.writer.directory(path, attributes)?;
        if mounted {
            self.writer.notices.lost(Lost::OtherMount, path);
            return Ok(());
        }
        let mut names: Vec<CString> = Vec::new();
        read_names(&directory, &mut self.names, &mut |name, _| {
            names.push(name.to_owned());
        })
        .map_err(|errno| self.reading(path, errno))?;
        for name in names {
            let child = join(path, name.to_bytes());
            let stat = match rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(self.reading(&child, errno)),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.left.push(child);
            } else {
                self.entry(&directory, name.to_bytes(), &child, &stat)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), ImportError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            self.writer.notices.lost(Lost::Socket, path);
            return Ok(());
        }
        self.writer.count_entry()?;
        self.options.progress.add(1);
        let file = (stat.st_dev, stat.st_ino);
        let several = stat.st_nlink > 1;
        if let Some(first) = self.linked.get(&file).filter(|_| several).cloned() {
            self.writer.hard_link(path, &first)?;
            return Ok(());
        }
        let made = match kind {
            FileType::RegularFile => self.file(directory, name, path)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())
                    .map_err(|errno| self.reading(path, errno))?;
                let attributes = self.attributes(path, stat, None)?;
                self.writer.symlink(path, target.to_bytes(), &attributes)?;
                true
            }
            kind => {
                let attributes = self.attributes(path, stat, None)?;
                let device = if kind == FileType::Fifo {
                    0
                } else {
                    stat.st_rdev
                };
                self.writer.node(path, kind, device, &attributes)?
            }
        };
        if made && several {
            self.linked.insert(file, path.to_owned());
        }
        Ok(())
    }

    fn file(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8]) -> Result<bool, ImportError> {
        let source = match open_on_mount(directory, name, READ) {
            Ok(source) => source,
            Err(Errno::XDEV) => {
                self.writer.notices.lost(Lost::OtherMount, path);
                return Ok(false);
            }
            Err(errno) => return Err(self.reading(path, errno)),
        };
        let stat = rustix::fs::fstat(&source).map_err(|errno| self.reading(path, errno))?;
        let attributes = self.attributes(path, &stat, Some(&source))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.writer.count_bytes(size)?;
        let holes = u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512)
            < size;
        let host_path = self.source.join(as_path(path));
        let (reflink, buffer) = (&self.reflink, &mut self.buffer);
        self.writer.file(path, &attributes, &mut |_, dest| {
            copy_file(&source, dest, holes, reflink, buffer).map_err(|failure| match failure {
                CopyFailure::Reading(errno) => ImportError::file("reading", &host_path, errno),
                CopyFailure::Writing(errno) => {
                    ImportError::file("writing the image's", as_path(path), errno)
                }
            })
        })?;
        Ok(true)
    }

    fn attributes(
        &mut self,
        path: &[u8],
        stat: &Stat,
        open: Option<&OwnedFd>,
    ) -> Result<Attributes, ImportError> {
        let xattrs = open.map(|file| xattrs::read(file.as_fd())).transpose();
        let xattrs = xattrs.map_err(|errno| self.reading(path, errno))?;
        let (mut uid, mut gid) = (stat.st_uid, stat.st_gid);
        if self.options.unknown_owner_is_root {
            for id in [&mut uid, &mut gid] {
                if *id == OVERFLOW_ID {
                    *id = 0;
                    self.writer.notices.lost(Lost::UnknownOwner, path);
                }
            }
        }
        Ok(Attributes {
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            mtime_ns: Some(mtime_ns(stat)),
            xattrs: xattrs.unwrap_or_default(),
        })
    }
}
