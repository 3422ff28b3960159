//! Comparing the content of two files.

use std::fs::File;
use std::io::{self, Read};

/// Whether two files of about that size have the same content, from where they stand.
pub(crate) fn is_same(mut a: &File, mut b: &File, size: i64) -> io::Result<bool> {
    const LONGEST: usize = 128 << 10;
    let piece = usize::try_from(size).unwrap_or(LONGEST).clamp(1, LONGEST);
    let mut buffers = [vec![0; piece], vec![0; piece]];
    loop {
        let [left, right] = &mut buffers;
        let count = fill(&mut a, left)?;
        if count != fill(&mut b, right)? || left[..count] != right[..count] {
            return Ok(false);
        }
        if count < piece {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
