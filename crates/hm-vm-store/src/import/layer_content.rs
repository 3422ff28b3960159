//! Writing a file of a layer, with holes for zeros.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// Holes are made of whole blocks of this many bytes.
const BLOCK: usize = 4096;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Writes into a new, empty file. Unlike what imports use, it computes no hash.
pub(super) struct LayerContent<'a> {
    file: &'a OwnedFd,
    position: u64,
    written_end: u64,
}

impl<'a> LayerContent<'a> {
    pub(super) fn new(file: &'a OwnedFd) -> Self {
        Self {
            file,
            position: 0,
            written_end: 0,
        }
    }

    /// Leaves a hole up to `position`.
    pub(super) fn skip_to(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// Writes the next bytes. Blocks of zeros become holes where they are blocks of the file.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let past = usize::try_from(self.position % BLOCK as u64).unwrap_or(0);
        let mut start = 0;
        // Up to the first border of a block that lies in these bytes.
        let mut at = (BLOCK - past) % BLOCK;
        while let Some(block) = bytes.get(at..at + BLOCK) {
            if block[0] == 0 && block == ZEROS {
                self.write_at(&bytes[start..at], start)?;
                start = at + BLOCK;
            }
            at += BLOCK;
        }
        self.write_at(&bytes[start..], start)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Makes the file as long as it should be.
    pub(super) fn finish(self, size: u64) -> Result<(), Errno> {
        match self.written_end < size {
            true => rustix::fs::ftruncate(self.file, size),
            false => Ok(()),
        }
    }

    fn write_at(&mut self, mut bytes: &[u8], start: usize) -> Result<(), Errno> {
        let mut offset = self.position + start as u64;
        while !bytes.is_empty() {
            match rustix::io::pwrite(self.file, bytes, offset) {
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
