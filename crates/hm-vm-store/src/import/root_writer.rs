//! Makes the entries of a root file system, for both kinds of sources.
//!
//! Everything goes through directories opened beneath the root without following links: an entry
//! whose path leads through a symbolic link is refused, whoever made the link. Directories get
//! their attributes at the end, so that they can be filled until then.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dev, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::notices::{Lost, Notices};
use super::removal::remove_tree;
use super::xattrs::{self, Xattr};
use super::{ImportError, ImportLimits, ImportOptions, ImportReport};
use crate::beneath::{DIRECTORY, Parents, as_path, join, open_beneath, timestamps};
use crate::content::{Content, ContentWriter};

/// What an entry has beside its content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_ns: Option<i64>,
    pub(crate) xattrs: Vec<Xattr>,
}

impl Attributes {
    /// Of a directory that nothing is known of.
    fn implied() -> Self {
        Self {
            mode: 0o755,
            ..Self::default()
        }
    }
}

/// A root file system that is being made.
#[derive(Debug)]
pub(super) struct RootWriter<'a> {
    root: BorrowedFd<'a>,
    parents: Parents<'a>,
    options: &'a ImportOptions,
    pub(super) notices: Notices,
    /// Attributes that directories will have.
    directories: BTreeMap<Vec<u8>, Attributes>,
    /// Hashes of the files by inode number, for the digest.
    hashes: HashMap<u64, [u8; 32]>,
    entries: u64,
    bytes: u64,
}

impl<'a> RootWriter<'a> {
    pub(super) fn new(root: &'a OwnedFd, options: &'a ImportOptions) -> Self {
        Self {
            root: root.as_fd(),
            parents: Parents::new(root.as_fd()),
            options,
            notices: Notices::default(),
            directories: BTreeMap::from([(Vec::new(), Attributes::implied())]),
            hashes: HashMap::new(),
            entries: 0,
            bytes: 0,
        }
    }

    /// Counts an entry of the source.
    pub(super) fn count_entry(&mut self) -> Result<(), ImportError> {
        self.entries += 1;
        let ImportLimits { entries: limit, .. } = self.options.limits;
        if self.entries > limit {
            return Err(ImportError::LimitExceeded {
                limit,
                unit: "entries",
            });
        }
        Ok(())
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Counts bytes of a file before they are written.
    pub(super) fn count_bytes(&mut self, bytes: u64) -> Result<(), ImportError> {
        self.bytes = self.bytes.saturating_add(bytes);
        let ImportLimits { bytes: limit, .. } = self.options.limits;
        if self.bytes > limit {
            return Err(ImportError::LimitExceeded {
                limit,
                unit: "bytes",
            });
        }
        Ok(())
    }

    /// Makes a directory, or gives one that exists other attributes. The root has no path.
    pub(super) fn directory(
        &mut self,
        path: &[u8],
        attributes: Attributes,
    ) -> Result<(), ImportError> {
        if !path.is_empty() {
            let existing = self.existing(path)?;
            if existing != Some(FileType::Directory) {
                self.clear(path, existing)?;
                self.in_parent(path, |parent, name| {
                    rustix::fs::mkdirat(parent, name, Mode::RWXU)
                })?;
            }
        }
        self.directories.insert(path.to_owned(), attributes);
        Ok(())
    }

    /// Makes a file; `fill` writes its content.
    pub(super) fn file(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        fill: &mut dyn FnMut(&mut Self, &OwnedFd) -> Result<Content, ImportError>,
    ) -> Result<(), ImportError> {
        self.make_room(path)?;
        let file = self.in_parent(path, |parent, name| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from(0o600))
        })?;
        let content = fill(self, &file)?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| writing(path, errno))?;
        self.hashes.insert(stat.st_ino, content.hash);
        self.finish_open(path, &file, attributes)
    }

    pub(super) fn symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), ImportError> {
        self.make_room(path)?;
        self.in_parent(path, |parent, name| {
            rustix::fs::symlinkat(target, parent, name)
        })?;
        self.finish_closed(path, attributes, false)
    }

    /// Makes a hard link. `false` when there is nothing at `target`.
    pub(super) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<bool, ImportError> {
        if path == target {
            return Ok(self.existing(path)?.is_some());
        }
        self.make_room(path)?;
        let root = self.root;
        let mut targets = Parents::new(root);
        let found = targets.of(target);
        let (target_parent, target_name) = match found {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(led_astray(target, errno)),
        };
        let linked = self.in_parent_raw(path, |parent, name| {
            rustix::fs::linkat(target_parent, target_name, parent, name, AtFlags::empty())
        })?;
        match linked {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::PERM | Errno::ISDIR) => {
                let reason = "it is a hard link to something that cannot have one";
                Err(ImportError::invalid(as_path(path), reason))
            }
            Err(errno) => Err(writing(path, errno)),
        }
    }

    /// Makes a fifo or a device node, or leaves it out with a notice.
    pub(super) fn node(
        &mut self,
        path: &[u8],
        kind: FileType,
        device: Dev,
        attributes: &Attributes,
    ) -> Result<bool, ImportError> {
        let whiteout = kind == FileType::CharacterDevice && device == 0;
        if whiteout || (kind != FileType::Fifo && !self.options.devices) {
            let lost = if whiteout {
                Lost::Whiteout
            } else {
                Lost::Device
            };
            self.notices.lost(lost, path);
            return Ok(false);
        }
        self.make_room(path)?;
        let made = self.in_parent_raw(path, |parent, name| {
            rustix::fs::mknodat(parent, name, kind, Mode::from(0o600), device)
        })?;
        match made {
            Err(Errno::PERM) if kind != FileType::Fifo => {
                self.notices.lost(Lost::Device, path);
                return Ok(false);
            }
            made => made.map_err(|errno| writing(path, errno))?,
        }
        self.finish_closed(path, attributes, true)?;
        Ok(true)
    }

    /// Gives directories their attributes, and computes the digest of the whole.
    pub(super) fn finish(mut self) -> Result<ImportReport, ImportError> {
        self.finish_directories()?;
        let sum = super::digest::digest(self.root, &self.hashes)?;
        Ok(ImportReport {
            entries: sum.entries,
            bytes: sum.bytes,
            digest: sum.digest,
            notices: self.notices.into_texts(),
        })
    }

    /// Gives directories their attributes.
    pub(super) fn finish_directories(&mut self) -> Result<(), ImportError> {
        let directories = std::mem::take(&mut self.directories);
        for (path, attributes) in directories.iter().rev() {
            let directory =
                open_beneath(self.root, path, DIRECTORY).map_err(|errno| writing(path, errno))?;
            self.finish_open(path, &directory, attributes)?;
        }
        Ok(())
    }

    /// Makes sure that the directory of `path` is there and nothing is at `path` itself.
    fn make_room(&mut self, path: &[u8]) -> Result<(), ImportError> {
        if path.is_empty() {
            let reason = "the root of the file system must be a directory";
            return Err(ImportError::invalid(Path::new("/"), reason));
        }
        let existing = self.existing(path)?;
        self.clear(path, existing)
    }

    /// Kind of what is at `path`. Makes the directories that lead to it.
    fn existing(&mut self, path: &[u8]) -> Result<Option<FileType>, ImportError> {
        if let Err(Errno::NOENT) = self.parents.of(path).map(drop) {
            self.make_parents(path)?;
        }
        let stat = self.in_parent_raw(path, |parent, name| {
            rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        })?;
        match stat {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(writing(path, errno)),
        }
    }

    fn make_parents(&mut self, path: &[u8]) -> Result<(), ImportError> {
        let slashes = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
        for (end, _) in slashes {
            let parent = &path[..end];
            let made = self.in_parent_raw(parent, |directory, name| {
                rustix::fs::mkdirat(directory, name, Mode::RWXU)
            })?;
            match made {
                Ok(()) => drop(
                    self.directories
                        .insert(parent.to_owned(), Attributes::implied()),
                ),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(writing(parent, errno)),
            }
        }
        Ok(())
    }

    /// Removes what is at `path`: a later entry replaces an earlier one.
    fn clear(&mut self, path: &[u8], existing: Option<FileType>) -> Result<(), ImportError> {
        match existing {
            None => Ok(()),
            Some(FileType::Directory) => {
                self.parents.forget();
                let below = join(path, b"");
                self.directories
                    .retain(|other, _| other != path && !other.starts_with(&below));
                remove_tree(self.root, path).map_err(|errno| writing(path, errno))
            }
            Some(_) => self.in_parent(path, |parent, name| {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())
            }),
        }
    }

    fn in_parent<T>(
        &mut self,
        path: &[u8],
        work: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, ImportError> {
        self.in_parent_raw(path, work)?
            .map_err(|errno| writing(path, errno))
    }

    /// Does something in the directory of `path`. The outer error says that there is no way to it.
    fn in_parent_raw<T>(
        &mut self,
        path: &[u8],
        work: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<Result<T, Errno>, ImportError> {
        let (parent, name) = self
            .parents
            .of(path)
            .map_err(|errno| led_astray(path, errno))?;
        Ok(work(parent, name))
    }

    /// Attributes of an open file or directory. Owner first: its change takes away set-id bits
    /// and capabilities.
    fn finish_open(
        &mut self,
        path: &[u8],
        file: &OwnedFd,
        attributes: &Attributes,
    ) -> Result<(), ImportError> {
        let (uid, gid) = owner(attributes);
        let owned = rustix::fs::fchown(file, Some(uid), Some(gid));
        let mode = self.mode_after_chown(path, attributes, owned)?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
            .map_err(|errno| writing(path, errno))?;
        for xattr in &attributes.xattrs {
            if !xattrs::is_kept(&xattr.0) || xattrs::write(file, xattr).is_err() {
                self.notices.lost(Lost::Xattr, path);
            }
        }
        match attributes.mtime_ns {
            Some(mtime_ns) => rustix::fs::futimens(file, &timestamps(mtime_ns))
                .map_err(|errno| writing(path, errno)),
            None => Ok(()),
        }
    }

    /// Attributes of an entry that cannot be opened.
    fn finish_closed(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        has_mode: bool,
    ) -> Result<(), ImportError> {
        let (uid, gid) = owner(attributes);
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let owned = self.in_parent_raw(path, |parent, name| {
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), nofollow)
        })?;
        let mode = self.mode_after_chown(path, attributes, owned)?;
        if !attributes.xattrs.is_empty() {
            self.notices.lost(Lost::Xattr, path);
        }
        let times = attributes.mtime_ns.map(timestamps);
        self.in_parent(path, |parent, name| {
            if has_mode {
                // Made a moment ago, and no link: there is nothing to follow.
                let mode = Mode::from_raw_mode(mode);
                rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
            }
            times.map_or(Ok(()), |times| {
                rustix::fs::utimensat(parent, name, &times, nofollow)
            })
        })
    }

    /// The mode to set. An owner that cannot be had becomes root, who must not lend its rights.
    fn mode_after_chown(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        owned: Result<(), Errno>,
    ) -> Result<u32, ImportError> {
        let mode = attributes.mode;
        match owned {
            Ok(()) => Ok(mode),
            // The caller, whom new files belong to, is the guest's root.
            Err(Errno::PERM) if (attributes.uid, attributes.gid) == (0, 0) => Ok(mode),
            Err(Errno::INVAL | Errno::PERM) => {
                self.notices.lost(Lost::Owner, path);
                Ok(mode & 0o1777)
            }
            Err(errno) => Err(writing(path, errno)),
        }
    }
}

fn owner(attributes: &Attributes) -> (Uid, Gid) {
    (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid))
}

fn writing(path: &[u8], errno: Errno) -> ImportError {
    match errno {
        Errno::NAMETOOLONG => ImportError::invalid(as_path(path), "its name or path is too long"),
        errno => ImportError::file("writing the image's", as_path(path), errno),
    }
}

/// There is no way to `path` along directories.
fn led_astray(path: &[u8], errno: Errno) -> ImportError {
    match errno {
        // Which of both comes depends on where the link is.
        Errno::LOOP | Errno::NOTDIR => {
            let reason = "its path leads through a symbolic link or a file";
            ImportError::invalid(as_path(path), reason)
        }
        errno => writing(path, errno),
    }
}

/// Writes through [`ContentWriter`], with holes for zeros.
pub(super) fn content_writer(file: &OwnedFd) -> ContentWriter<'_, OwnedFd> {
    ContentWriter::new(file, true)
}
