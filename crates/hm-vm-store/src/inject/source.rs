//! Reading the files of a scanned directory once more.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::walk::Stamp;
use super::{Entry, EntryKind, InjectError};
use crate::beneath::{Parents, READ, as_path, mtime_ns, open_root};

/// A directory that was scanned, for reading its files where no layer is made of them. Files are opened beneath
/// it, and no link is followed.
#[derive(Debug)]
pub struct SourceDirectory {
    root: OwnedFd,
    path: PathBuf,
}

impl SourceDirectory {
    /// Opens the directory; its own path may go through links.
    ///
    /// # Errors
    ///
    /// A failure to open it.
    pub fn open(path: &Path) -> Result<Self, InjectError> {
        Ok(Self {
            root: open_root(path)?,
            path: path.to_owned(),
        })
    }

    /// For reading files one after the other. It is quickest in the tree's order.
    pub fn reader(&self) -> SourceReader<'_> {
        SourceReader {
            directory: &self.path,
            parents: Parents::new(self.root.as_fd()),
        }
    }
}

/// Reads files of a [`SourceDirectory`].
#[derive(Debug)]
pub struct SourceReader<'a> {
    directory: &'a Path,
    parents: Parents<'a>,
}

impl SourceReader<'_> {
    /// Opens a file of the tree.
    ///
    /// # Errors
    ///
    /// [`InjectError::ChangedWhileReading`] when there is no such file any more, or it is not as the scan saw it; or
    /// a failure to open it.
    pub fn open(&mut self, entry: &Entry<'_>) -> Result<SourceFile, InjectError> {
        let EntryKind::File { size, hash } = entry.kind else {
            return Err(changed(entry.path));
        };
        let (file, stat) = open_source(&mut self.parents, self.directory, entry, size)?;
        Ok(SourceFile {
            file,
            mtime_ns: mtime_ns(&stat),
            path: entry.path.to_vec(),
            directory: self.directory.to_owned(),
            left: size,
            hash,
            hasher: blake3::Hasher::new(),
        })
    }
}

/// Opens a file that is to have the size and the mode that the scan saw.
pub(super) fn open_source(
    parents: &mut Parents<'_>,
    host_dir: &Path,
    entry: &Entry<'_>,
    size: u64,
) -> Result<(OwnedFd, Stat), InjectError> {
    let opened = parents.of(entry.path).and_then(|(directory, name)| {
        let flags = READ | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&source)?;
        Ok((source, stat))
    });
    let (source, stat) = match opened {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => {
            return Err(changed(entry.path));
        }
        opened => opened.map_err(|errno| reading(host_dir, entry.path, errno))?,
    };
    let stamp = Stamp::of(&stat);
    let regular = FileType::from_raw_mode(stat.st_mode).is_file();
    if !regular || stamp.size != size || stamp.mode != entry.mode {
        return Err(changed(entry.path));
    }
    Ok((source, stat))
}

pub(super) fn reading(host_dir: &Path, path: &[u8], errno: Errno) -> InjectError {
    InjectError::file("reading", &host_dir.join(as_path(path)), errno)
}

pub(super) fn changed(path: &[u8]) -> InjectError {
    InjectError::ChangedWhileReading {
        path: as_path(path).to_owned(),
    }
}

/// A file that is being read.
pub struct SourceFile {
    file: OwnedFd,
    mtime_ns: i64,
    path: Vec<u8>,
    directory: PathBuf,
    left: u64,
    hash: [u8; 32],
    hasher: blake3::Hasher,
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFile")
            .field("path", &as_path(&self.path))
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl SourceFile {
    /// When it was modified last, in nanoseconds since 1970.
    pub fn mtime_ns(&self) -> i64 {
        self.mtime_ns
    }

    /// Reads what comes next of it into a buffer that is not empty, and tells how many bytes. 0 is its end: then it
    /// was, and is, what the scan saw.
    ///
    /// # Errors
    ///
    /// [`InjectError::ChangedWhileReading`] as soon as it is clear that it is not; or a failure to read.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, InjectError> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        // One that has become longer since it was opened is as it was at that moment.
        if most == 0 {
            return match *self.hasher.finalize().as_bytes() == self.hash {
                true => Ok(0),
                false => Err(changed(&self.path)),
            };
        }
        let count = loop {
            match rustix::io::read(&self.file, &mut buffer[..most]) {
                Err(Errno::INTR) => {}
                other => {
                    break other.map_err(|errno| reading(&self.directory, &self.path, errno))?;
                }
            }
        };
        if count == 0 {
            return Err(changed(&self.path));
        }
        self.hasher.update(&buffer[..count]);
        self.left -= count as u64;
        Ok(count)
    }
}
