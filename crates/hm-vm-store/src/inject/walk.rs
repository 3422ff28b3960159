//! Finds the entries of a host directory, with several threads.
//!
//! Each directory is opened beneath the root without following links, and what is in it is looked
//! at relative to that: links that are swapped in during the walk lead nowhere.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::InjectError;
use super::filter::{Choice, Filter};
use super::queue::{Job, Queue};
use super::rules::{GITIGNORE, HMVMIGNORE, Rules, Surroundings, Verdict};
use crate::beneath::{DIRECTORY, as_path, ctime_ns, mtime_ns, open_beneath, read_names};

/// An entry as the walk saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Where its path is in [`Walk::bytes`].
    pub(super) path_start: usize,
    pub(super) path_length: usize,
    pub(super) kind: FoundKind,
    pub(super) stamp: Stamp,
}

/// Kind of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum FoundKind {
    Directory {
        /// Whether it is brought only if something in it is.
        leading: bool,
    },
    File,
    /// The target is behind the path.
    Symlink {
        target_length: usize,
    },
}

/// What tells that a file is unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
    pub(super) mode: u32,
}

impl Stamp {
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: mtime_ns(stat),
            ctime_ns: ctime_ns(stat),
            mode: stat.st_mode & 0o7777,
        }
    }
}

/// All entries, in no order.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) found: Vec<Found>,
    pub(super) bytes: Vec<u8>,
    pub(super) notices: Vec<String>,
}

impl Walk {
    pub(super) fn path(&self, found: &Found) -> &[u8] {
        &self.bytes[found.path_start..found.path_start + found.path_length]
    }

    /// Target of a symbolic link.
    pub(super) fn target(&self, found: &Found, length: usize) -> &[u8] {
        let start = found.path_start + found.path_length;
        &self.bytes[start..start + length]
    }

    fn append(&mut self, other: &Self) {
        let shift = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.found.extend(other.found.iter().map(|found| Found {
            path_start: found.path_start + shift,
            ..*found
        }));
        self.notices.extend_from_slice(&other.notices);
    }
}

/// Walks the directory that `root` is open on; `host_dir` is its canonical path.
pub(super) fn walk(
    root: &OwnedFd,
    host_dir: &Path,
    filter: &Filter,
    threads: usize,
) -> Result<Walk, InjectError> {
    let mut notices = Vec::new();
    let surroundings = if filter.ignore_files {
        Surroundings::of(host_dir, &mut notices)?
    } else {
        Surroundings::default()
    };
    let queue = Queue::new(Job {
        path: Vec::new(),
        rules: surroundings.rules.clone(),
        choice: filter.at_top(),
    });
    let worker = || Worker::new(root.as_fd(), host_dir, filter, &surroundings.prefix).run(&queue);
    let mut walk = Walk::default();
    let mut others = Vec::new();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        walk = worker();
        others.extend(handles.into_iter().filter_map(|handle| handle.join().ok()));
    });
    for other in &others {
        walk.append(other);
    }
    walk.notices.append(&mut notices);
    match queue.into_failure() {
        Some(failure) => Err(failure),
        None => Ok(walk),
    }
}

/// A name in the directory that is being read.
struct Name {
    start: usize,
    /// Length without the NUL behind it.
    length: usize,
    file_type: FileType,
}

/// The directory that is being read, and what is said of an entry in it.
#[derive(Clone, Copy)]
struct Place<'a> {
    directory: &'a OwnedFd,
    rules: Option<&'a Arc<Rules>>,
    choice: Choice,
}

/// One thread of the walk.
struct Worker<'a> {
    root: BorrowedFd<'a>,
    host_dir: &'a Path,
    filter: &'a Filter,
    prefix_length: usize,
    walk: Walk,
    /// Path of the entry at hand, counted from the top of the repository.
    path: Vec<u8>,
    subdirectories: Vec<Job>,
    names: Vec<Name>,
    name_bytes: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(root: BorrowedFd<'a>, host_dir: &'a Path, filter: &'a Filter, prefix: &[u8]) -> Self {
        Self {
            root,
            host_dir,
            filter,
            prefix_length: prefix.len(),
            walk: Walk::default(),
            path: prefix.to_vec(),
            subdirectories: Vec::new(),
            names: Vec::new(),
            name_bytes: Vec::new(),
            buffer: Vec::new(),
        }
    }

    fn run(mut self, queue: &Queue) -> Walk {
        while let Some(job) = queue.take() {
            let result = self.read_directory(&job);
            queue.done(&mut self.subdirectories, result);
        }
        self.walk
    }

    fn failure(&self, doing: &'static str, path: &[u8], errno: Errno) -> InjectError {
        InjectError::file(doing, &self.host_dir.join(as_path(path)), errno)
    }

    fn read_directory(&mut self, job: &Job) -> Result<(), InjectError> {
        let directory = match open_beneath(self.root, &job.path, DIRECTORY) {
            Ok(directory) => directory,
            // It went away, or became something else: the scan does not see it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !job.path.is_empty() => {
                return Ok(());
            }
            Err(errno) => return Err(self.failure("opening", &job.path, errno)),
        };
        self.path.truncate(self.prefix_length);
        self.path.extend_from_slice(&job.path);
        if !job.path.is_empty() {
            let stat = rustix::fs::fstat(&directory)
                .map_err(|errno| self.failure("looking at", &job.path, errno))?;
            let leading = job.choice == Choice::Leading;
            self.add(FoundKind::Directory { leading }, Stamp::of(&stat), &[]);
            self.path.push(b'/');
        }
        let has_rules = self
            .read_names(&directory)
            .map_err(|errno| self.failure("reading", &job.path, errno))?;
        let mut rules = job.rules.clone();
        if has_rules && self.filter.ignore_files {
            let base = self.path.len();
            let own = Rules::read(&directory, rules.as_ref(), base, &mut self.walk.notices)
                .map_err(|errno| self.failure("reading ignore files in", &job.path, errno))?;
            rules = own.or(rules);
        }
        let names = std::mem::take(&mut self.names);
        let name_bytes = std::mem::take(&mut self.name_bytes);
        let result = names.iter().try_for_each(|name| {
            let with_nul = &name_bytes[name.start..=name.start + name.length];
            let place = Place {
                directory: &directory,
                rules: rules.as_ref(),
                choice: job.choice,
            };
            self.visit(place, with_nul, name.file_type)
        });
        self.names = names;
        self.name_bytes = name_bytes;
        result
    }

    /// Collects the names, and tells whether an ignore file is among them.
    fn read_names(&mut self, directory: &OwnedFd) -> Result<bool, Errno> {
        self.names.clear();
        self.name_bytes.clear();
        let (names, bytes) = (&mut self.names, &mut self.name_bytes);
        let mut has_rules = false;
        read_names(directory, &mut self.buffer, &mut |name, file_type| {
            has_rules |= matches!(name.to_bytes(), GITIGNORE | HMVMIGNORE);
            names.push(Name {
                start: bytes.len(),
                length: name.to_bytes().len(),
                file_type,
            });
            bytes.extend_from_slice(name.to_bytes_with_nul());
        })?;
        Ok(has_rules)
    }

    fn visit(
        &mut self,
        mut place: Place<'_>,
        name: &[u8],
        mut file_type: FileType,
    ) -> Result<(), InjectError> {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            return Ok(());
        };
        let directory_length = self.path.len();
        self.path.extend_from_slice(name.to_bytes());
        let mut stamp = None;
        let result = (|| {
            if file_type == FileType::Unknown {
                let stat = rustix::fs::statat(place.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                file_type = FileType::from_raw_mode(stat.st_mode);
                stamp = Some(Stamp::of(&stat));
            }
            let is_directory = file_type == FileType::Directory;
            if self.is_left_out(&place, name, is_directory) {
                return Ok(());
            }
            let path = &self.path[self.prefix_length..];
            place.choice = self.filter.choose(path, is_directory, place.choice);
            if place.choice == Choice::Left {
                return Ok(());
            }
            self.keep(place, name, file_type, stamp)
        })();
        let result = match result {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => {
                let path = self.path[self.prefix_length..].to_vec();
                Err(self.failure("looking at", &path, errno))
            }
        };
        self.path.truncate(directory_length);
        result
    }

    /// Whether ignore files, or its name, leave the entry at hand out.
    fn is_left_out(&self, place: &Place<'_>, name: &CStr, is_directory: bool) -> bool {
        let verdict = place.rules.map_or(Verdict::Unnamed, |rules| {
            rules.verdict(&self.path, is_directory)
        });
        match verdict {
            Verdict::Ignored => true,
            Verdict::AskedFor => false,
            Verdict::Unnamed => {
                name.to_bytes() == b".git"
                    && !self
                        .filter
                        .names_git(&self.path[self.prefix_length..], is_directory)
            }
        }
    }

    /// Takes the entry that is not left out.
    fn keep(
        &mut self,
        place: Place<'_>,
        name: &CStr,
        file_type: FileType,
        stamp: Option<Stamp>,
    ) -> Result<(), Errno> {
        let directory = place.directory;
        if file_type == FileType::Directory {
            self.subdirectories.push(Job {
                path: self.path[self.prefix_length..].to_vec(),
                rules: place.rules.cloned(),
                choice: place.choice,
            });
            return Ok(());
        }
        if !matches!(file_type, FileType::RegularFile | FileType::Symlink) {
            let path = as_path(&self.path[self.prefix_length..]).display();
            let notice = format!("{path} was left out: it is neither file, directory nor link");
            self.walk.notices.push(notice);
            return Ok(());
        }
        let stamp = match stamp {
            Some(stamp) => stamp,
            None => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != file_type {
                    // Replaced in between: as if it had not been there yet.
                    return Ok(());
                }
                Stamp::of(&stat)
            }
        };
        if file_type == FileType::Symlink {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
            let target = target.to_bytes();
            let kind = FoundKind::Symlink {
                target_length: target.len(),
            };
            self.add(kind, stamp, target);
        } else {
            self.add(FoundKind::File, stamp, &[]);
        }
        Ok(())
    }

    /// Adds the entry at hand.
    fn add(&mut self, kind: FoundKind, stamp: Stamp, target: &[u8]) {
        let path = &self.path[self.prefix_length..];
        let walk = &mut self.walk;
        walk.found.push(Found {
            path_start: walk.bytes.len(),
            path_length: path.len(),
            kind,
            stamp,
        });
        walk.bytes.extend_from_slice(path);
        walk.bytes.extend_from_slice(target);
    }
}
