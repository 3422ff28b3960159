//! `/etc/hosts` where the daemon gives none: it does so only for networks of its own making. A VM without a network still has
//! a loopback interface, and programs look for `localhost`.
//!
//! What a command writes there does not last: as where the daemon provides the file.

use crate::calls;
use crate::memory::Memory;
use crate::numbers::*;
use crate::run_files::write_all;

const USUAL: &[u8] =
    b"127.0.0.1\tlocalhost\n127.0.1.1\thm-vm\n::1\tlocalhost ip6-localhost ip6-loopback\n";
/// A longer file is left alone.
const LONGEST: usize = 64 << 10;

/// The file as the command finds it.
pub struct Hosts(Option<Content>);

struct Content {
    bytes: Memory,
    length: usize,
}

impl Hosts {
    /// Sees to it that `localhost` can be found.
    pub fn provide() -> Self {
        let Some(found) = read() else {
            return Self(None);
        };
        if has_localhost(found.text()) {
            return Self(Some(found));
        }
        write(USUAL);
        Self(read())
    }

    /// Undoes what the command did to it. No other process may be alive.
    pub fn put_back(self) {
        let Some(before) = self.0 else { return };
        if read().is_none_or(|now| now.text() != before.text()) {
            write(before.text());
        }
    }
}

impl Content {
    fn text(&self) -> &[u8] {
        self.bytes.bytes().get(..self.length).unwrap_or_default()
    }
}

/// Nothing for a file that is too long. One that is not there, or no file, has nothing in it.
fn read() -> Option<Content> {
    let mut bytes = Memory::new(LONGEST).ok()?;
    let mut length = 0;
    if let Ok(file) = calls::open_at(AT_FDCWD, c"/etc/hosts", O_NOFOLLOW | O_NONBLOCK, 0) {
        while let Ok(count @ 1..) = calls::read(file, &mut bytes.bytes_mut()[length..]) {
            length += count;
        }
        calls::close(file);
    }
    (length < LONGEST).then_some(Content { bytes, length })
}

/// A disk that is full, or a directory that is missing, is no reason for the command not to run.
fn write(text: &[u8]) {
    let flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK;
    if let Ok(file) = calls::open_at(AT_FDCWD, c"/etc/hosts", flags, 0o644) {
        let _ = write_all(file, text);
        calls::close(file);
    }
}

fn has_localhost(text: &[u8]) -> bool {
    let is_loopback = |line: &[u8]| {
        let mut words = line
            .split(|byte| byte.is_ascii_whitespace())
            .filter(|word| !word.is_empty());
        words.next().is_some_and(|first| first.starts_with(b"127."))
            && words.any(|word| word == b"localhost")
    };
    text.split(|byte| *byte == b'\n').any(is_loopback)
}
