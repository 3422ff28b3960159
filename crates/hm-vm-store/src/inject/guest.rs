//! What an inject must know of the guest's files.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Mode and owner of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryAttributes {
    /// Permission bits with set-id and sticky bits (07777).
    pub mode: u32,
    /// Owner as it is to be on disk.
    pub uid: u32,
    /// Group as it is to be on disk.
    pub gid: u32,
}

impl Default for DirectoryAttributes {
    /// What a new directory gets: 0755, owned by root.
    fn default() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
        }
    }
}

/// What there is at a path of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEntry {
    /// A directory.
    Directory(DirectoryAttributes),
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// The guest's merged files below the layer that is being made.
pub trait GuestView {
    /// What is at the absolute `path`, without following a symbolic link in any component. `None`
    /// when there is nothing.
    ///
    /// # Errors
    ///
    /// A failure to look.
    fn entry(&self, path: &Path) -> io::Result<Option<GuestEntry>>;

    /// Names in the directory at the absolute `path`, in any order.
    ///
    /// # Errors
    ///
    /// A failure to read it.
    fn names(&self, path: &Path) -> io::Result<Vec<OsString>>;
}

/// A guest without files.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyGuest;

impl GuestView for EmptyGuest {
    fn entry(&self, path: &Path) -> io::Result<Option<GuestEntry>> {
        let root = path == Path::new("/");
        Ok(root.then(|| GuestEntry::Directory(DirectoryAttributes::default())))
    }

    fn names(&self, _path: &Path) -> io::Result<Vec<OsString>> {
        Ok(Vec::new())
    }
}
