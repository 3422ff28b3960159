//! A layout in a directory.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use super::Place;
use crate::OciError;

/// A directory whose files are only reached by real directories and are only files: whoever can write in it cannot
/// lead a reader elsewhere.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    root: OwnedFd,
}

impl Directory {
    /// Opens it. The path itself may lead through links: it is the user's.
    pub(crate) fn open(path: &Path) -> Result<Self, OciError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())
            .map_err(|error| OciError::of_io("opening", path.display(), error.into()))?;
        let path = path.to_owned();
        Ok(Self { path, root })
    }

    /// Opens a file by its path below the directory, for reading.
    pub(crate) fn file(&self, path: &str) -> Result<(File, u64), OciError> {
        let failed = |error: io::Error| {
            if error.kind() == io::ErrorKind::NotFound {
                return OciError::NotFound {
                    what: path.to_owned(),
                    place: self.path.display().to_string(),
                };
            }
            OciError::of_io("opening", self.path.join(path).display(), error)
        };
        let mut above = None;
        let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
        for directory in directories.split('/').filter(|part| !part.is_empty()) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = openat(
                above.as_ref().unwrap_or(&self.root),
                directory,
                flags,
                Mode::empty(),
            );
            above = Some(next.map_err(|error| failed(error.into()))?);
        }
        // Not to wait for whoever opens the other end of a named pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(
            above.as_ref().unwrap_or(&self.root),
            name,
            flags,
            Mode::empty(),
        )
        .map_err(|error| failed(error.into()))?;
        let stat = fstat(&file).map_err(|error| failed(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let what = self.path.join(path).display().to_string();
            return Err(OciError::invalid(what, "it is no regular file"));
        }
        Ok((File::from(file), u64::try_from(stat.st_size).unwrap_or(0)))
    }
}

impl Place for Directory {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn open(&self, path: &str) -> Result<(Box<dyn Read + Send>, u64), OciError> {
        let (file, size) = self.file(path)?;
        Ok((Box::new(file), size))
    }
}
