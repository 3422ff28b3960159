//! Makes the entries of a layer, in overlayfs's own form.
//!
//! As Docker's, where the archive leaves a choice: an entry replaces what is at its path, but a directory a
//! directory; directories that the archive does not tell of have mode 0755 and belong to root; a hard link
//! gives its own attributes to the file.
//!
//! To be run as root, of the machine or of a user namespace: directories get their modes at once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::ImportError;
use super::layer_report::{LayerLimits, LayerOptions};
use super::notices::{Lost, Notices};
use super::removal::remove_tree;
use super::root_writer::Attributes;
use super::way::{Way, open_within};
use crate::beneath::{DIRECTORY, as_path, split, timestamps};
use crate::tree::directory::{OPAQUE, is_whiteout};

/// What came of a hard link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linked {
    Done,
    /// The layer has nothing at the target.
    NoTarget,
}

/// A layer that is being made.
pub(super) struct LayerWriter<'a> {
    root: BorrowedFd<'a>,
    pub(super) way: Way<'a>,
    options: &'a LayerOptions,
    pub(super) notices: Notices,
    /// The process's mask of permissions.
    pub(super) umask: u32,
    /// Whether a directory has a default access control list, which changes modes of what is made in it.
    pub(super) has_default_acl: bool,
    entries: u64,
    bytes: u64,
}

impl<'a> LayerWriter<'a> {
    /// Begins a layer in an empty directory.
    pub(super) fn new(root: &'a OwnedFd, options: &'a LayerOptions) -> Result<Self, ImportError> {
        // Whoever is to be the guest's root owns it already.
        rustix::fs::fchmod(root, Mode::from_raw_mode(0o755))
            .map_err(|errno| writing(b".", errno))?;
        Self::resume(root, options)
    }

    /// Goes on with a layer.
    pub(super) fn resume(
        root: &'a OwnedFd,
        options: &'a LayerOptions,
    ) -> Result<Self, ImportError> {
        Ok(Self {
            root: root.as_fd(),
            way: Way::new(root.as_fd()).map_err(|errno| writing(b".", errno))?,
            options,
            notices: Notices::default(),
            umask: super::layer_owner::umask(),
            has_default_acl: false,
            entries: 0,
            bytes: 0,
        })
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts an entry, before it is made.
    pub(super) fn count_entry(&mut self) -> Result<(), ImportError> {
        self.entries += 1;
        let LayerLimits { entries: limit, .. } = self.options.limits;
        match self.entries > limit {
            true => Err(ImportError::LimitExceeded {
                limit,
                unit: "entries",
            }),
            false => Ok(()),
        }
    }

    /// Counts bytes of a file, holes included, before they are written.
    pub(super) fn count_bytes(&mut self, bytes: u64) -> Result<(), ImportError> {
        self.bytes = self.bytes.saturating_add(bytes);
        let LayerLimits { bytes: limit, .. } = self.options.limits;
        match self.bytes > limit {
            true => Err(ImportError::LimitExceeded {
                limit,
                unit: "bytes",
            }),
            false => Ok(()),
        }
    }

    /// The root's own entry.
    pub(super) fn root(&mut self, attributes: &Attributes) -> Result<(), ImportError> {
        let failed = |errno| writing(b".", errno);
        let time = attributes.mtime_ns.unwrap_or(0);
        if !self.options.root_entry {
            self.way
                .directory(b"", time)
                .map_err(failed)?
                .set_time(time);
            return Ok(());
        }
        let root = self.way.directory(b"", time).map_err(failed)?;
        root.set_time(time);
        let fd = root.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|error| ImportError::file("opening", as_path(b"."), error))?;
        self.set_open(b".", &fd, attributes, None, true)
    }

    /// Makes a directory, or gives one that is there other attributes.
    pub(super) fn directory(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<(), ImportError> {
        let time = attributes.mtime_ns.unwrap_or(0);
        let at = |errno| astray(path, errno);
        let failed = |errno| writing(path, errno);
        let (parent, name) = self.way.parent_of(path, time).map_err(at)?;
        let inherits = parent.inherits;
        let mode = Mode::from_raw_mode(attributes.mode & 0o777);
        let mut fresh = true;
        match rustix::fs::mkdirat(parent.as_fd(), name, mode) {
            Ok(()) => parent.touch(),
            Err(Errno::EXIST) if is_directory(parent.as_fd(), name) => fresh = false,
            Err(Errno::EXIST) => {
                clear(parent.as_fd(), name).map_err(failed)?;
                parent.touch();
                rustix::fs::mkdirat(parent.as_fd(), name, mode).map_err(failed)?;
            }
            Err(errno) => return Err(failed(errno)),
        }
        let flags = DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent.as_fd(), name, flags, Mode::empty()).map_err(failed)?;
        self.set_open(path, &fd, attributes, Some(inherits), !fresh)?;
        let inherits = attributes.mode & 0o2000 != 0;
        self.way.push(path, fd, inherits, time).map_err(failed)
    }

    /// Makes a file; `fill` writes its content.
    pub(super) fn file(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        fill: &mut dyn FnMut(&OwnedFd) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(attributes.mode & 0o777);
        let (file, inherits) = self.make(path, attributes, |parent, name| {
            rustix::fs::openat(parent, name, flags, mode)
        })?;
        fill(&file)?;
        self.set_open(path, &file, attributes, Some(inherits), false)?;
        let times = timestamps(attributes.mtime_ns.unwrap_or(0));
        rustix::fs::futimens(&file, &times).map_err(|errno| writing(path, errno))
    }

    pub(super) fn symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), ImportError> {
        let ((), inherits) = self.make(path, attributes, |parent, name| {
            rustix::fs::symlinkat(target, parent, name)
        })?;
        self.set_closed(path, attributes, inherits, false)
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
        let mode = Mode::from_raw_mode(attributes.mode & 0o777);
        let made = self.make(path, attributes, |parent, name| {
            match rustix::fs::mknodat(parent, name, kind, mode, device) {
                Err(Errno::PERM) if kind != FileType::Fifo => Ok(false),
                made => made.map(|()| true),
            }
        })?;
        let (true, inherits) = made else {
            self.notices.lost(Lost::Device, path);
            return Ok(false);
        };
        self.set_closed(path, attributes, inherits, true)?;
        Ok(true)
    }

    /// Makes a hard link to an entry of this layer. What is at `path` is gone in any case.
    pub(super) fn hard_link(
        &mut self,
        path: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<Linked, ImportError> {
        let (directory, target_name) = split(target);
        let found = open_within(self.root, directory, DIRECTORY).and_then(|directory| {
            let stat = rustix::fs::statat(&directory, target_name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok((directory, stat))
        });
        let (directory, stat) = match found {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return self.no_target(path, attributes);
            }
            Err(errno) => return Err(astray(target, errno)),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let reason = "it is a hard link to a directory";
            return Err(ImportError::invalid(as_path(path), reason));
        }
        if path != target {
            let linked = self.make(path, attributes, |parent, name| {
                rustix::fs::linkat(&directory, target_name, parent, name, AtFlags::empty())
            });
            match linked {
                Ok(_) => {}
                // It lay in a directory that this entry replaced.
                Err(ImportError::File(failure))
                    if failure.source.kind() == std::io::ErrorKind::NotFound =>
                {
                    return Ok(Linked::NoTarget);
                }
                Err(error) => return Err(error),
            }
        }
        // A link to a whiteout is another one, as with Docker.
        if !is_whiteout(&stat) {
            self.set_linked(path, &directory, target_name, &stat, attributes)?;
        }
        Ok(Linked::Done)
    }

    fn no_target(&mut self, path: &[u8], attributes: &Attributes) -> Result<Linked, ImportError> {
        let time = attributes.mtime_ns.unwrap_or(0);
        let (parent, name) = self
            .way
            .parent_of(path, time)
            .map_err(|errno| astray(path, errno))?;
        clear(parent.as_fd(), name).map_err(|errno| writing(path, errno))?;
        parent.touch();
        Ok(Linked::NoTarget)
    }

    /// Hides what the layers below have at `path`. What this layer has there stays: a whiteout is about
    /// other layers.
    pub(super) fn whiteout(&mut self, path: &[u8], mtime_ns: i64) -> Result<(), ImportError> {
        let (parent, name) = self
            .way
            .parent_of(path, mtime_ns)
            .map_err(|errno| astray(path, errno))?;
        let made = rustix::fs::mknodat(
            parent.as_fd(),
            name,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        );
        match made {
            Ok(()) => {
                parent.touch();
                Ok(())
            }
            Err(Errno::EXIST) if is_directory(parent.as_fd(), name) => self.opaque(path, mtime_ns),
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(writing(path, errno)),
        }
    }

    /// Hides what the layers below have in the directory `path`.
    pub(super) fn opaque(&mut self, path: &[u8], mtime_ns: i64) -> Result<(), ImportError> {
        let directory = self
            .way
            .directory(path, mtime_ns)
            .map_err(|errno| astray(path, errno))?;
        rustix::fs::fsetxattr(directory.as_fd(), OPAQUE, b"y", XattrFlags::empty())
            .map_err(|errno| writing(path, errno))
    }

    /// Gives directories their times.
    pub(super) fn finish(self) -> Result<Notices, ImportError> {
        self.way.finish().map_err(|errno| writing(b".", errno))?;
        Ok(self.notices)
    }

    /// Makes an entry by `work` in its directory. What is there already goes.
    fn make<T>(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        mut work: impl FnMut(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<(T, bool), ImportError> {
        let time = attributes.mtime_ns.unwrap_or(0);
        let (parent, name) = self
            .way
            .parent_of(path, time)
            .map_err(|errno| astray(path, errno))?;
        parent.touch();
        let made = match work(parent.as_fd(), name) {
            Err(Errno::EXIST) => {
                clear(parent.as_fd(), name).and_then(|()| work(parent.as_fd(), name))
            }
            made => made,
        };
        let inherits = parent.inherits;
        made.map(|made| (made, inherits))
            .map_err(|errno| writing(path, errno))
    }
}

fn is_directory(parent: BorrowedFd<'_>, name: &[u8]) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Removes whatever is there.
fn clear(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => remove_tree(parent, name),
        Err(errno) => Err(errno),
    }
}

pub(super) fn writing(path: &[u8], errno: Errno) -> ImportError {
    match errno {
        Errno::NAMETOOLONG => ImportError::invalid(as_path(path), "its name or path is too long"),
        errno => ImportError::file("writing the layer's", as_path(path), errno),
    }
}

/// There is no way to `path`.
fn astray(path: &[u8], errno: Errno) -> ImportError {
    match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::NOENT => {
            let reason = "its path leads through a file, or a symbolic link to nowhere";
            ImportError::invalid(as_path(path), reason)
        }
        errno => writing(path, errno),
    }
}
