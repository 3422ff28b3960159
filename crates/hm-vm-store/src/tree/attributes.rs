//! Owner, mode, times and extended attributes of directories and files.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use rustix::fs::{Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};

/// Extended attributes that are overlayfs's own notes, not part of the file.
const OVERLAY_PREFIX: &[u8] = b"user.overlay.";

/// Gives `to` owner, mode, extended attributes and times of `from`. overlayfs's own notes are left
/// out.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let source = rustix::fs::fstat(from)?;
    let target = rustix::fs::fstat(to)?;
    if (source.st_uid, source.st_gid) != (target.st_uid, target.st_gid) {
        let owner = Some(Uid::from_raw(source.st_uid));
        rustix::fs::fchown(to, owner, Some(Gid::from_raw(source.st_gid)))?;
    }
    for (name, value) in extended(from)? {
        match rustix::fs::fsetxattr(to, name.as_c_str(), &value, XattrFlags::empty()) {
            // Labels that only the system itself may set.
            Err(Errno::PERM | Errno::NOTSUP) if !name.to_bytes().starts_with(b"user.") => {}
            other => other?,
        }
    }
    // After the owner, whose change drops bits, and after an access control list, which is mode too.
    rustix::fs::fchmod(to, Mode::from_raw_mode(source.st_mode & 0o7777))?;
    rustix::fs::futimens(to, &times(&source))
}

/// Times of a file, for setting them.
pub(crate) fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: nanoseconds(stat.st_atime_nsec),
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: nanoseconds(stat.st_mtime_nsec),
        },
    }
}

fn nanoseconds(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(0)
}

/// Extended attributes of an open file, sorted by name, without overlayfs's own notes.
pub(crate) fn extended(file: BorrowedFd<'_>) -> Result<Vec<(CString, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in names(file)? {
        if name.to_bytes().starts_with(OVERLAY_PREFIX) {
            continue;
        }
        match value(file, &name) {
            Ok(value) => found.push((name, value)),
            // Removed meanwhile, or not ours to see.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    found.sort();
    Ok(found)
}

fn names(file: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let size = match rustix::fs::flistxattr_query(file) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut buffer = vec![0u8; size + 256];
    let length = rustix::fs::flistxattr(file, &mut buffer[..])?;
    Ok(buffer[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

fn value(file: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>> {
    let size = rustix::fs::fgetxattr_query(file, name)?;
    let mut buffer = vec![0u8; size];
    let length = rustix::fs::fgetxattr(file, name, &mut buffer[..])?;
    buffer.truncate(length);
    Ok(buffer)
}
