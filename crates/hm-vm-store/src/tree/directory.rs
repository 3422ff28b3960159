//! Opening and listing directories of layers, and the marks that overlayfs puts there.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, Result};

pub(crate) use crate::beneath::join;

/// Longest path given to the kernel in one piece.
const PIECE: usize = 3000;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens the directory `path` below `root`, which is relative, without `..`. An empty path is
/// `root` itself. Fails with `ELOOP` or `ENOTDIR` on a symbolic link anywhere in it.
pub(crate) fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    if path.is_empty() {
        return open_child(root, c".");
    }
    let mut open: Option<OwnedFd> = None;
    let mut rest = path;
    while !rest.is_empty() {
        let (piece, tail) = cut(rest);
        let from = open.as_ref().map_or(root, AsFd::as_fd);
        open = Some(open_piece(from, piece)?);
        rest = tail;
    }
    open.ok_or(Errno::NOENT)
}

/// Opens a directory by its name in `parent`.
pub(crate) fn open_child(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
}

fn open_piece(root: BorrowedFd<'_>, piece: &[u8]) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, piece, DIRECTORY, Mode::empty(), resolve) {
        // Old kernels, and seccomp filters that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let mut open: Option<OwnedFd> = None;
            for name in piece.split(|&byte| byte == b'/') {
                let from = open.as_ref().map_or(root, AsFd::as_fd);
                open = Some(rustix::fs::openat(from, name, DIRECTORY, Mode::empty())?);
            }
            open.ok_or(Errno::NOENT)
        }
        other => other,
    }
}

/// Cuts a path at a separator, so that the first part is short enough for one call.
fn cut(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= PIECE {
        return (path, &[]);
    }
    match path[..PIECE].iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, &[]),
    }
}

/// Name and type of every entry, without `.` and `..`, in the order of the file system. The type
/// is `Unknown` where the file system does not tell.
pub(crate) fn list(directory: BorrowedFd<'_>) -> Result<Vec<(CString, FileType)>> {
    let mut found = Vec::new();
    let mut reader = Dir::read_from(directory)?;
    while let Some(entry) = reader.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            found.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(found)
}

/// Whether a directory has no entries.
pub(crate) fn is_empty(directory: BorrowedFd<'_>) -> Result<bool> {
    let mut reader = Dir::read_from(directory)?;
    while let Some(entry) = reader.read() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Attributes of an entry itself, whatever it is.
pub(crate) fn stat(parent: BorrowedFd<'_>, name: &CStr) -> Result<Stat> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// The type of a file.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether an entry says that the layers below have nothing of this name.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether a directory hides the directories of the same path in the layers below.
pub(crate) fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0u8; 2];
    rustix::fs::fgetxattr(directory, OPAQUE, &mut value) == Ok(1) && value[0] == b'y'
}

/// Name of the mark of an opaque directory, on overlays mounted with `userxattr`.
pub(crate) const OPAQUE: &CStr = c"user.overlay.opaque";
