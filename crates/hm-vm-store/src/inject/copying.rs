//! Brings files and links into a layer, with several threads.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hm_vm_core::Progress;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::source::{changed, open_source, reading};
use super::walk::Stamp;
use super::{Entry, EntryKind, InjectError, LayerReport, Tree};
use crate::beneath::{Parents, as_path, join, timestamps};
use crate::content::{BUFFER_BYTES, CopyFailure, Reflink, copy_file};

/// Entries that a thread takes at once: neighbours share their directories.
const CHUNK: usize = 64;

/// From where to where.
#[derive(Debug)]
pub(super) struct Copying<'a> {
    pub(super) tree: &'a Tree,
    pub(super) host: BorrowedFd<'a>,
    pub(super) host_dir: &'a Path,
    pub(super) dest: BorrowedFd<'a>,
    /// Path of the place below `dest`.
    pub(super) place: &'a [u8],
    pub(super) links: Option<Links<'a>>,
    pub(super) reflink: Reflink,
    /// Where files and links are counted.
    pub(super) progress: &'a Progress,
}

/// Files that an earlier layer has already.
#[derive(Debug)]
pub(super) struct Links<'a> {
    pub(super) layer: BorrowedFd<'a>,
    /// Path of its place below `layer`.
    pub(super) place: Vec<u8>,
    /// For each entry of the tree, whether the earlier layer has the same.
    pub(super) same: Vec<bool>,
}

impl Links<'_> {
    /// Tells which files of `tree` are in `earlier` with the same content and mode.
    pub(super) fn compare(tree: &Tree, earlier: &Tree) -> Vec<bool> {
        let mut earlier = earlier.entries().peekable();
        tree.entries()
            .map(|entry| {
                while earlier.next_if(|old| old.path < entry.path).is_some() {}
                matches!(entry.kind, EntryKind::File { .. })
                    && earlier.peek().is_some_and(|old| {
                        old.path == entry.path && old.kind == entry.kind && old.mode == entry.mode
                    })
            })
            .collect()
    }
}

impl Copying<'_> {
    /// Brings all files and symbolic links of the tree. Their directories exist.
    pub(super) fn run(&self, threads: usize) -> Result<LayerReport, InjectError> {
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let worker = || {
            let mut worker = Worker::new(self);
            while !failed.load(Ordering::Relaxed) {
                let start = next.fetch_add(CHUNK, Ordering::Relaxed);
                if start >= self.tree.len() {
                    break;
                }
                for index in start..(start + CHUNK).min(self.tree.len()) {
                    if let Err(failure) = worker.bring(index) {
                        failed.store(true, Ordering::Relaxed);
                        return Err(failure);
                    }
                }
            }
            Ok(worker.report)
        };
        let threads = threads.min(self.tree.len().div_ceil(CHUNK)).max(1);
        let results: Vec<_> = std::thread::scope(|scope| {
            let handles: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
            let own = worker();
            let others = handles.into_iter().filter_map(|handle| handle.join().ok());
            std::iter::once(own).chain(others).collect()
        });
        let mut report = LayerReport::default();
        for result in results {
            let part = result?;
            report.files_copied += part.files_copied;
            report.files_linked += part.files_linked;
            report.bytes_copied += part.bytes_copied;
            report.symlinks += part.symlinks;
        }
        Ok(report)
    }
}

/// One thread.
struct Worker<'a> {
    copying: &'a Copying<'a>,
    host: Parents<'a>,
    dest: Parents<'a>,
    layer: Option<Parents<'a>>,
    buffer: Vec<u8>,
    report: LayerReport,
}

impl<'a> Worker<'a> {
    fn new(copying: &'a Copying<'a>) -> Self {
        Self {
            copying,
            host: Parents::new(copying.host),
            dest: Parents::new(copying.dest),
            layer: copying
                .links
                .as_ref()
                .map(|links| Parents::new(links.layer)),
            buffer: Vec::new(),
            report: LayerReport::default(),
        }
    }

    fn bring(&mut self, index: usize) -> Result<(), InjectError> {
        let Some(entry) = self.copying.tree.get(index) else {
            return Ok(());
        };
        match entry.kind {
            EntryKind::Directory => return Ok(()),
            EntryKind::Symlink { target } => self.make_symlink(&entry, target)?,
            EntryKind::File { size, hash } => {
                if self.link(index, &entry) {
                    self.report.files_linked += 1;
                } else {
                    self.copy(&entry, size, &hash)?;
                }
            }
        }
        self.copying.progress.add(1);
        Ok(())
    }

    fn writing(&self, path: &[u8], errno: Errno) -> InjectError {
        InjectError::file("writing the layer's", as_path(path), errno)
    }

    fn make_symlink(&mut self, entry: &Entry<'_>, target: &[u8]) -> Result<(), InjectError> {
        let path = join(self.copying.place, entry.path);
        let made = (|| {
            let (directory, name) = self.dest.of(&path)?;
            rustix::fs::symlinkat(target, directory, name)?;
            let times = timestamps(entry.mtime_ns);
            rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        })();
        made.map_err(|errno| self.writing(&path, errno))?;
        self.report.symlinks += 1;
        Ok(())
    }

    /// Tries to link the file. Whatever stands against that, a copy follows, which tells.
    fn link(&mut self, index: usize, entry: &Entry<'_>) -> bool {
        let (Some(links), Some(layer)) = (&self.copying.links, &mut self.layer) else {
            return false;
        };
        if !links.same.get(index).copied().unwrap_or(false) {
            return false;
        }
        let old = join(&links.place, entry.path);
        let new = join(self.copying.place, entry.path);
        let (Ok((old_dir, old_name)), Ok((new_dir, new_name))) =
            (layer.of(&old), self.dest.of(&new))
        else {
            return false;
        };
        rustix::fs::linkat(old_dir, old_name, new_dir, new_name, AtFlags::empty()).is_ok()
    }

    /// Copies the file, and makes sure that it is what the scan saw.
    fn copy(&mut self, entry: &Entry<'_>, size: u64, hash: &[u8]) -> Result<(), InjectError> {
        let host_dir = self.copying.host_dir;
        let (source, stat) = open_source(&mut self.host, host_dir, entry, size)?;
        let stamp = Stamp::of(&stat);
        // A file that has fewer blocks than its bytes need has holes.
        let holes = u64::try_from(stat.st_blocks).unwrap_or(0) * 512 < stamp.size;
        let path = join(self.copying.place, entry.path);
        let dest = self
            .create(&path)
            .map_err(|errno| self.writing(&path, errno))?;
        self.buffer.resize(BUFFER_BYTES, 0);
        let reflink = &self.copying.reflink;
        let content = match copy_file(&source, &dest, holes, reflink, &mut self.buffer) {
            Ok(content) => content,
            Err(CopyFailure::Reading(errno)) => return Err(reading(host_dir, entry.path, errno)),
            Err(CopyFailure::Writing(errno)) => return Err(self.writing(&path, errno)),
        };
        if content.size != size || content.hash != *hash {
            return Err(changed(entry.path));
        }
        rustix::fs::fchmod(&dest, Mode::from_raw_mode(entry.mode))
            .and_then(|()| rustix::fs::futimens(&dest, &timestamps(stamp.mtime_ns)))
            .map_err(|errno| self.writing(&path, errno))?;
        self.report.files_copied += 1;
        self.report.bytes_copied += size;
        Ok(())
    }

    /// Makes an empty file in the layer. It is readable, because a cloned file is read back.
    fn create(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let (directory, name) = self.dest.of(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(directory, name, flags, Mode::from(0o600))
    }
}
