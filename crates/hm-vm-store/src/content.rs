//! Copying and hashing file content in one pass.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

/// Bytes that are read at once.
pub(crate) const BUFFER_BYTES: usize = 256 * 1024;

/// Holes are made of whole blocks of this many bytes.
const BLOCK: usize = 4096;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Length and hash of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) size: u64,
    pub(crate) hash: [u8; 32],
}

/// On which side a copy failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CopyFailure {
    Reading(Errno),
    Writing(Errno),
}

/// Hashes an open file from its current position.
///
/// `expected` is where the end should be: reading stops there, and the caller compares the length
/// of the file.
pub(crate) fn hash_file(
    file: impl AsFd,
    expected: u64,
    buffer: &mut [u8],
) -> Result<Content, Errno> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    while size < expected {
        let count = read(&file, buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
    Ok(Content {
        size,
        hash: *hasher.finalize().as_bytes(),
    })
}

/// Copies a file's content into an empty file, by sharing blocks where the file system can.
/// `holes` makes holes of zero blocks. Returns what was stored.
pub(crate) fn copy_file(
    source: impl AsFd,
    dest: impl AsFd,
    holes: bool,
    reflink: &Reflink,
    buffer: &mut [u8],
) -> Result<Content, CopyFailure> {
    if reflink.try_clone(&source, &dest) {
        return hash_file(&dest, u64::MAX, buffer).map_err(CopyFailure::Writing);
    }
    let mut writer = ContentWriter::new(&dest, holes);
    loop {
        let count = read(&source, buffer).map_err(CopyFailure::Reading)?;
        if count == 0 {
            return writer.finish().map_err(CopyFailure::Writing);
        }
        writer
            .write(&buffer[..count])
            .map_err(CopyFailure::Writing)?;
    }
}

/// Whether cloning is worth a try; remembers a refusal.
#[derive(Debug)]
pub(crate) struct Reflink(AtomicBool);

impl Reflink {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    fn try_clone(&self, source: impl AsFd, dest: impl AsFd) -> bool {
        if !self.0.load(Ordering::Relaxed) {
            return false;
        }
        let cloned = rustix::fs::ioctl_ficlone(dest, source).is_ok();
        // A copy follows, which tells a failure other than "cannot clone here".
        self.0.store(cloned, Ordering::Relaxed);
        cloned
    }
}

/// Writes content to an empty file, hashes it, and leaves holes for zero blocks where asked to.
#[derive(Debug)]
pub(crate) struct ContentWriter<'fd, Fd: AsFd> {
    dest: &'fd Fd,
    hasher: blake3::Hasher,
    size: u64,
    written_end: u64,
    holes: bool,
}

impl<'fd, Fd: AsFd> ContentWriter<'fd, Fd> {
    pub(crate) fn new(dest: &'fd Fd, holes: bool) -> Self {
        Self {
            dest,
            hasher: blake3::Hasher::new(),
            size: 0,
            written_end: 0,
            holes,
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.hasher.update(bytes);
        if self.holes {
            self.write_with_holes(bytes)?;
        } else {
            self.write_at(bytes, self.size)?;
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Puts zeros behind what was written. Uses, and overwrites, `buffer`.
    pub(crate) fn write_zeros(&mut self, mut count: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        if count > 0 {
            buffer.fill(0);
        }
        while count > 0 {
            let part = usize::try_from(count).map_or(buffer.len(), |count| count.min(buffer.len()));
            self.write(&buffer[..part])?;
            count -= part as u64;
        }
        Ok(())
    }

    /// Makes the file as long as it should be, and returns what it holds.
    pub(crate) fn finish(self) -> Result<Content, Errno> {
        if self.written_end < self.size {
            rustix::fs::ftruncate(self.dest, self.size)?;
        }
        Ok(Content {
            size: self.size,
            hash: *self.hasher.finalize().as_bytes(),
        })
    }

    fn write_with_holes(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let mut start = 0;
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            if block.len() == BLOCK && block == ZEROS {
                let here = index * BLOCK;
                self.write_at(&bytes[start..here], self.size + start as u64)?;
                start = here + BLOCK;
            }
        }
        self.write_at(&bytes[start..], self.size + start as u64)
    }

    fn write_at(&mut self, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(self.dest, bytes, offset) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                    self.written_end = offset;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

fn read(file: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match rustix::io::read(&file, &mut *buffer) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
