//! Which extended attributes are kept.

use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Name and value.
pub(super) type Xattr = (Vec<u8>, Vec<u8>);

/// Keeps the user's attributes and file capabilities. Not `user.overlay.*`, with which overlayfs
/// would be told things; not `trusted.*`, and nothing that the system sets by itself.
pub(super) fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// The attributes of an open file that are kept, sorted by name.
pub(super) fn read(file: impl AsFd) -> Result<Vec<Xattr>, Errno> {
    let names = match read_growing(|buffer| rustix::fs::flistxattr(&file, buffer)) {
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        names => names?,
    };
    let mut xattrs = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| is_kept(name)) {
        match read_growing(|buffer| rustix::fs::fgetxattr(&file, name, buffer)) {
            Ok(value) => xattrs.push((name.to_owned(), value)),
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

pub(super) fn write(file: impl AsFd, (name, value): &Xattr) -> Result<(), Errno> {
    rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())
}

/// Most lists and values fit at once; the kernel allows 64 KiB.
fn read_growing(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 512];
    match read(&mut small) {
        Ok(count) => return Ok(small[..count].to_owned()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut large = vec![0; 64 * 1024];
    let count = read(&mut large)?;
    large.truncate(count);
    Ok(large)
}
