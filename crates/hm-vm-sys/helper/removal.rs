//! Removal of files, never through a symbolic link.

use core::ffi::CStr;

use crate::calls::{self, Result};
use crate::frames::NONCE;
use crate::numbers::*;

/// A name in a buffer, ended by a zero byte.
pub struct Name {
    buffer: [u8; 256],
    length: usize,
}

impl Name {
    /// `None` for what is longer than the kernel takes, or has a zero byte in it.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut name = Self {
            buffer: [0; 256],
            length: 0,
        };
        name.add(bytes)?;
        Some(name)
    }

    pub fn add(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length + bytes.len();
        if end >= self.buffer.len() || bytes.contains(&0) {
            return None;
        }
        self.buffer[self.length..end].copy_from_slice(bytes);
        self.length = end;
        Some(())
    }

    pub fn add_number(&mut self, mut number: usize) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        let _ = self.add(&digits[at..]);
    }

    pub fn text(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.buffer).unwrap_or_default()
    }
}

/// Removes what a `D` frame names. Returns the first failure, 0 without one; `None` for a frame that makes no sense.
pub fn remove_listed(payload: &[u8]) -> Option<i32> {
    let listed = payload.get(NONCE..)?;
    if listed.last() != Some(&0) {
        return None;
    }
    let mut texts = listed.split_inclusive(|byte| *byte == 0);
    let base = CStr::from_bytes_with_nul(texts.next()?).ok()?;
    let base = match calls::open(base, O_PATH | O_DIRECTORY) {
        Ok(base) => base,
        Err(ENOENT | ENOTDIR) => return Some(0),
        Err(errno) => return Some(errno),
    };
    let mut failure = 0;
    for text in texts {
        let path = text.strip_suffix(&[0]).unwrap_or(text);
        match remove_one(base, path) {
            Ok(()) | Err(ENOENT | ENOTDIR | ENOTEMPTY | EEXIST | ELOOP) => {}
            Err(errno) if failure == 0 => failure = errno,
            Err(_) => {}
        }
    }
    calls::close(base);
    Some(failure)
}

fn remove_one(base: i32, path: &[u8]) -> Result<()> {
    let mut directory = base;
    let mut parts = path.split(|byte| *byte == b'/').peekable();
    let result = loop {
        let Some(part) = parts.next() else {
            break Err(EINVAL);
        };
        let name = match Name::new(part) {
            Some(name) if !part.is_empty() && part != b"." && part != b".." => name,
            _ => break Err(EINVAL),
        };
        if parts.peek().is_none() {
            break remove_entry(directory, name.text());
        }
        let flags = O_PATH | O_DIRECTORY | O_NOFOLLOW;
        let next = calls::open_at(directory, name.text(), flags, 0);
        if directory != base {
            calls::close(directory);
        }
        match next {
            Ok(next) => directory = next,
            Err(errno) => return Err(errno),
        }
    };
    if directory != base {
        calls::close(directory);
    }
    result
}

/// A file, or an empty directory.
fn remove_entry(directory: i32, name: &CStr) -> Result<()> {
    match calls::unlink_at(directory, name, 0) {
        Err(EISDIR | EPERM) => calls::unlink_at(directory, name, AT_REMOVEDIR).map(|_| ()),
        other => other.map(|_| ()),
    }
}

/// Calls `visit` with each entry that one pass over the directory finds. Returns how often that was true.
fn for_each_entry(directory: i32, mut visit: impl FnMut(&CStr) -> bool) -> usize {
    const NAME_AT: usize = 19;
    let Ok(opened) = calls::open_at(directory, c".", O_DIRECTORY, 0) else {
        return 0;
    };
    let mut buffer = [0u8; 4096];
    let mut done = 0;
    while let Ok(length @ 1..) = calls::entries(opened, &mut buffer) {
        let mut rest = &buffer[..length];
        while let Some((header, _)) = rest.split_at_checked(NAME_AT) {
            let size = usize::from(u16::from_ne_bytes([header[16], header[17]]));
            let Some((entry, after)) = rest.split_at_checked(size.max(NAME_AT)) else {
                break;
            };
            rest = after;
            let name = CStr::from_bytes_until_nul(&entry[NAME_AT..]).unwrap_or_default();
            if name != c"." && name != c".." && visit(name) {
                done += 1;
            }
        }
    }
    calls::close(opened);
    done
}

/// Removes all that is in a directory. However deep it is, nothing here grows: what is found in a directory is
/// moved up before that is removed.
pub fn empty_directory(top: i32) {
    let mut moved = 0usize;
    loop {
        let progress = for_each_entry(top, |name| {
            if remove_entry(top, name).is_ok() {
                return true;
            }
            let flags = O_DIRECTORY | O_NOFOLLOW;
            let Ok(inner) = calls::open_at(top, name, flags, 0) else {
                return false;
            };
            let lifted = for_each_entry(inner, |entry| {
                remove_entry(inner, entry).is_ok() || lift(inner, entry, top, &mut moved)
            });
            calls::close(inner);
            remove_entry(top, name).is_ok() || lifted > 0
        });
        if progress == 0 {
            return;
        }
    }
}

/// Moves an entry to the top, under a name that is free there.
fn lift(inner: i32, entry: &CStr, top: i32, moved: &mut usize) -> bool {
    let Some(mut name) = Name::new(b".hm-vm-removed-") else {
        return false;
    };
    *moved += 1;
    name.add_number(*moved);
    calls::rename_at(inner, entry, top, name.text()).is_ok()
}
