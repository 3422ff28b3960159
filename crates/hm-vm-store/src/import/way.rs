//! The directories that lead to an entry of a layer, kept open from one entry to the next.
//!
//! Entries mostly come sorted, so that one call opens what is needed. A directory that is left gets the
//! modification time back that it had: whatever was made in it changed that. So no list of all directories is
//! needed, however many there are.
//!
//! A symbolic link on the way is followed inside the layer's root only, as the kernel does for a process whose
//! root that is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid};
use rustix::io::Errno;

use crate::beneath::{DIRECTORY, mtime_ns, open_beneath, split, timestamps};

/// As many directories are open at once.
const OPEN: usize = 48;

/// How links are followed: nothing above the root is reached.
const WITHIN: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Mode of directories that an archive does not tell of.
const IMPLIED_MODE: u32 = 0o755;

/// The set-group-id bit: what is made in such a directory takes its group over.
const SET_GROUP_ID: u32 = 0o2000;

/// An open directory.
#[derive(Debug)]
pub(super) struct Level {
    /// Length of its path.
    end: usize,
    fd: OwnedFd,
    times: Timestamps,
    /// Whether its times are to be set when it is left.
    changed: bool,
    /// Whether new entries take its group over.
    pub(super) inherits: bool,
}

impl AsFd for Level {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Level {
    /// Says that something was made or removed in it.
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    /// What its modification time will be.
    pub(super) fn set_time(&mut self, mtime_ns: i64) {
        self.times = timestamps(mtime_ns);
        self.changed = true;
    }

    fn leave(self) -> Result<(), Errno> {
        match self.changed {
            true => rustix::fs::futimens(&self.fd, &self.times),
            false => Ok(()),
        }
    }
}

/// The open directories that lead to the last entry.
#[derive(Debug)]
pub(super) struct Way<'a> {
    root: BorrowedFd<'a>,
    /// The root is the first one. Each lies in those before it.
    levels: Vec<Level>,
    path: Vec<u8>,
}

impl<'a> Way<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Result<Self, Errno> {
        let fd = open_beneath(root, b"", DIRECTORY)?;
        Ok(Self {
            root,
            levels: vec![level(fd, 0)?],
            path: Vec::new(),
        })
    }

    /// The directory that `path` lies in, and its name there. Directories that are missing are made, with
    /// `mtime_ns`.
    pub(super) fn parent_of<'path>(
        &mut self,
        path: &'path [u8],
        mtime_ns: i64,
    ) -> Result<(&mut Level, &'path [u8]), Errno> {
        let (parent, name) = split(path);
        self.directory(parent, mtime_ns).map(|level| (level, name))
    }

    /// The directory `path`. It, and those on the way to it, are made where they are missing.
    pub(super) fn directory(&mut self, path: &[u8], mtime_ns: i64) -> Result<&mut Level, Errno> {
        self.go_back(path)?;
        while self.path.len() < path.len() {
            let start = self.path.len() + usize::from(!self.path.is_empty());
            let length = path[start..].iter().position(|&byte| byte == b'/');
            let end = length.map_or(path.len(), |length| start + length);
            self.step(path, start, end, mtime_ns)?;
        }
        self.last()
    }

    /// Takes a directory in the last level, made or opened by the caller, as the next level.
    pub(super) fn push(
        &mut self,
        path: &[u8],
        fd: OwnedFd,
        inherits: bool,
        mtime_ns: i64,
    ) -> Result<(), Errno> {
        let level = Level {
            end: path.len(),
            fd,
            times: timestamps(mtime_ns),
            changed: true,
            inherits,
        };
        self.add(path, level)
    }

    /// Leaves all directories.
    pub(super) fn finish(mut self) -> Result<(), Errno> {
        self.levels.drain(..).try_for_each(Level::leave)
    }

    /// The innermost open directory.
    pub(super) fn last(&mut self) -> Result<&mut Level, Errno> {
        self.levels.last_mut().ok_or(Errno::BADF)
    }

    /// Leaves the directories that do not lead to `path`.
    fn go_back(&mut self, path: &[u8]) -> Result<(), Errno> {
        while let Some(level) = self.levels.last() {
            let end = level.end;
            let leads = path.get(..end) == Some(&self.path[..end]);
            if end == 0 || leads && matches!(path.get(end), None | Some(b'/')) {
                break;
            }
            if let Some(level) = self.levels.pop() {
                level.leave()?;
            }
        }
        let end = self.levels.last().map_or(0, |level| level.end);
        self.path.truncate(end);
        Ok(())
    }

    /// Opens `path[start..end]`, a name in the last level, or makes it.
    fn step(&mut self, path: &[u8], start: usize, end: usize, mtime_ns: i64) -> Result<(), Errno> {
        let name = &path[start..end];
        let parent = self.last()?;
        let flags = DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&parent.fd, name, flags, Mode::empty());
        match opened {
            Ok(fd) => self.add(&path[..end], level(fd, end)?),
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&parent.fd, name, Mode::RWXU)?;
                parent.touch();
                let fd = rustix::fs::openat(&parent.fd, name, flags, Mode::empty())?;
                let inherits = parent.inherits;
                let mut mode = IMPLIED_MODE;
                if inherits {
                    // As Docker: it belongs to root, but has the bit.
                    rustix::fs::fchown(&fd, Some(Uid::ROOT), Some(Gid::ROOT))?;
                    mode |= SET_GROUP_ID;
                }
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
                self.push(&path[..end], fd, inherits, mtime_ns)
            }
            Err(Errno::LOOP | Errno::NOTDIR) => self.follow(&path[..end]),
            Err(errno) => Err(errno),
        }
    }

    /// Opens a directory behind a symbolic link. One that is open already would have two times to get back,
    /// so all are left before.
    fn follow(&mut self, path: &[u8]) -> Result<(), Errno> {
        self.levels.drain(1..).try_for_each(Level::leave)?;
        if let Some(root) = self.levels.pop() {
            root.leave()?;
        }
        self.path.clear();
        self.levels
            .push(level(open_beneath(self.root, b"", DIRECTORY)?, 0)?);
        let fd = open_within(self.root, path, DIRECTORY)?;
        self.add(path, level(fd, path.len())?)
    }

    fn add(&mut self, path: &[u8], level: Level) -> Result<(), Errno> {
        self.path.clear();
        self.path.extend_from_slice(path);
        self.levels.push(level);
        if self.levels.len() > OPEN {
            self.levels.remove(1).leave()?;
        }
        Ok(())
    }
}

/// Opens what is at `path`, following symbolic links as if `root` were the root.
pub(super) fn open_within(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), WITHIN)
}

fn level(fd: OwnedFd, end: usize) -> Result<Level, Errno> {
    let stat = rustix::fs::fstat(&fd)?;
    debug_assert_eq!(FileType::from_raw_mode(stat.st_mode), FileType::Directory);
    Ok(Level {
        end,
        times: timestamps(mtime_ns(&stat)),
        changed: false,
        inherits: stat.st_mode & SET_GROUP_ID != 0,
        fd,
    })
}
