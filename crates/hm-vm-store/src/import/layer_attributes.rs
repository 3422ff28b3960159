//! Attributes of a layer's entries.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::layer_owner::{Owner, may_keep};
use super::layer_writer::{LayerWriter, writing};
use super::notices::Lost;
use super::root_writer::Attributes;
use super::{ImportError, xattrs};
use crate::beneath::{READ, mtime_ns, split, timestamps};

const SPECIAL_BITS: u32 = 0o7000;
const CAPABILITY: &[u8] = b"security.capability";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

impl LayerWriter<'_> {
    /// Gives an open file or directory its attributes, but for the times. `inherits` is of the directory in
    /// which it was made; an `existing` one has attributes already.
    pub(super) fn set_open(
        &mut self,
        path: &[u8],
        file: &OwnedFd,
        attributes: &Attributes,
        inherits: Option<bool>,
        existing: bool,
    ) -> Result<(), ImportError> {
        let owner = Owner::of(attributes);
        let inherits = inherits.unwrap_or(false);
        let mut mode = attributes.mode;
        // Owner first: its change takes away set-id bits and capabilities.
        if existing || inherits || !owner.is_root() {
            let owned = rustix::fs::fchown(file, Some(owner.uid), Some(owner.gid));
            mode = self.mode_after_chown(path, attributes, owned)?;
        }
        for xattr in &attributes.xattrs {
            if !may_keep(&xattr.0) || xattrs::write(file, xattr).is_err() {
                self.notices.lost(Lost::Xattr, path);
            } else if xattr.0 == DEFAULT_ACL {
                self.has_default_acl = true;
            }
        }
        if existing || inherits || self.has_default_acl || mode & (SPECIAL_BITS | self.umask) != 0 {
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
                .map_err(|errno| writing(path, errno))?;
        }
        Ok(())
    }

    /// Gives an entry that cannot be opened its attributes.
    pub(super) fn set_closed(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        inherits: bool,
        has_mode: bool,
    ) -> Result<(), ImportError> {
        let owner = Owner::of(attributes);
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (_, name) = split(path);
        if !attributes.xattrs.is_empty() {
            self.notices.lost(Lost::Xattr, path);
        }
        let failed = |errno| writing(path, errno);
        let mut mode = attributes.mode;
        if inherits || !owner.is_root() {
            let parent = self.way.last().map_err(failed)?;
            let owned =
                rustix::fs::chownat(parent, name, Some(owner.uid), Some(owner.gid), nofollow);
            mode = self.mode_after_chown(path, attributes, owned)?;
        }
        let needs_mode =
            inherits || self.has_default_acl || mode & (SPECIAL_BITS | self.umask) != 0;
        let parent = self.way.last().map_err(failed)?;
        if has_mode && needs_mode {
            // Made a moment ago, and no link: there is nothing to follow.
            rustix::fs::chmodat(&*parent, name, Mode::from_raw_mode(mode), AtFlags::empty())
                .map_err(failed)?;
        }
        let times = timestamps(attributes.mtime_ns.unwrap_or(0));
        rustix::fs::utimensat(parent, name, &times, nofollow).map_err(failed)
    }

    /// Gives a file to which a link was made the attributes that the link has.
    pub(super) fn set_linked(
        &mut self,
        path: &[u8],
        directory: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        attributes: &Attributes,
    ) -> Result<(), ImportError> {
        let failed = |errno| writing(path, errno);
        let times = timestamps(attributes.mtime_ns.unwrap_or(0));
        let same_time = attributes.mtime_ns == Some(mtime_ns(stat));
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let owner = Owner::of(attributes);
            let nofollow = AtFlags::SYMLINK_NOFOLLOW;
            let owned =
                rustix::fs::chownat(directory, name, Some(owner.uid), Some(owner.gid), nofollow);
            let mode = self.mode_after_chown(path, attributes, owned)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                let mode = Mode::from_raw_mode(mode);
                rustix::fs::chmodat(directory, name, mode, AtFlags::empty()).map_err(failed)?;
                rustix::fs::utimensat(directory, name, &times, nofollow).map_err(failed)?;
            }
            return Ok(());
        }
        let flags = READ | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(failed)?;
        if !attributes.xattrs.iter().any(|(name, _)| name == CAPABILITY) {
            // As the change of its owner does.
            let there = rustix::fs::fgetxattr_query(&file, CAPABILITY).is_ok();
            if there {
                rustix::fs::fremovexattr(&file, CAPABILITY).map_err(failed)?;
            }
        }
        let owner = Owner::of(attributes);
        let same_owner =
            (owner.uid, owner.gid) == (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let same_mode = attributes.mode == stat.st_mode & 0o7777;
        if !same_owner || !same_mode || !attributes.xattrs.is_empty() {
            self.set_open(path, &file, attributes, None, true)?;
        }
        if same_time {
            return Ok(());
        }
        rustix::fs::futimens(&file, &times).map_err(failed)
    }

    /// The mode to set. An owner that cannot be had becomes root, who must not lend its rights.
    fn mode_after_chown(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        owned: Result<(), Errno>,
    ) -> Result<u32, ImportError> {
        match owned {
            Ok(()) => Ok(attributes.mode),
            // The caller, whom new files belong to, is the guest's root.
            Err(Errno::PERM) if (attributes.uid, attributes.gid) == (0, 0) => Ok(attributes.mode),
            Err(Errno::INVAL | Errno::PERM) => {
                self.notices.lost(Lost::Owner, path);
                Ok(attributes.mode & 0o1777)
            }
            Err(errno) => Err(writing(path, errno)),
        }
    }
}
