//! Content that is checked while it is read.

use std::io::{self, Read};

use crate::digest::Hasher;
use crate::{Descriptor, OciError};

/// Passes a blob's bytes on, and fails at its end when they are not those that its descriptor names: as soon as there
/// is one too many, or when there are too few, or when the digest is another one.
///
/// What was read before the failure must not be used: only a reader that has given `Ok(0)` was right.
#[derive(Debug)]
pub struct Verified<R> {
    input: R,
    blob: Descriptor,
    hasher: Option<Hasher>,
    left: u64,
}

impl<R: Read> Verified<R> {
    /// Checks `input` against the size and digest of `blob`.
    pub fn new(input: R, blob: &Descriptor) -> Self {
        Self {
            input,
            blob: blob.clone(),
            hasher: Some(Hasher::default()),
            left: blob.size,
        }
    }

    /// Reads what is left, so that all of it is checked.
    ///
    /// # Errors
    ///
    /// That of the input, or [`OciError::Mismatch`] inside.
    pub fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(|_| ())
    }

    fn mismatch(&self, reason: String) -> io::Error {
        io::Error::other(OciError::Mismatch {
            what: self.blob.digest.to_string(),
            reason,
        })
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.input.read(buffer)?;
        if count == 0 {
            if self.left > 0 {
                let (left, size) = (self.left, self.blob.size);
                return Err(self.mismatch(format!("{left} of its {size} bytes are missing")));
            }
            if let Some(hasher) = self.hasher.take() {
                let found = hasher.finish();
                if found != self.blob.digest {
                    return Err(self.mismatch(format!("its content has the digest {found}")));
                }
            }
            return Ok(0);
        }
        self.left = match self.left.checked_sub(count as u64) {
            Some(left) => left,
            None => {
                let size = self.blob.size;
                return Err(self.mismatch(format!("it is longer than its {size} bytes")));
            }
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(blob: &Descriptor, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        Verified::new(bytes, blob).read_to_end(&mut read)?;
        Ok(read)
    }

    #[test]
    fn only_the_right_bytes_pass() {
        let blob = Descriptor::of("x", b"hello");
        assert_eq!(check(&blob, b"hello").unwrap(), b"hello");
        for wrong in [&b"hell"[..], b"hello!", b"jello", b""] {
            assert!(check(&blob, wrong).is_err());
        }
    }
}
