//! Logs that other machines have recorded.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::files::read_header;
use super::reader::{LogReader, Piece};

/// Reads a log of another machine to its end, in bounded memory: it must be whole, be that of `key`, and have that
/// many bytes of output in it. Stops when `proceed` says no.
///
/// # Errors
///
/// [`ErrorKind::InvalidData`] when it is not so, [`ErrorKind::Interrupted`] when stopped; or a failure to read.
pub(crate) fn check_log(
    path: &Path,
    key: &str,
    output_bytes: u64,
    proceed: &dyn Fn() -> bool,
) -> io::Result<()> {
    let wrong = |what: &str| Err(io::Error::new(ErrorKind::InvalidData, what));
    if read_header(&mut File::open(path)?)?.key != key {
        return wrong("it is that of another key");
    }
    let mut reader = LogReader::open(path)?;
    let mut read = 0_u64;
    loop {
        if !proceed() {
            return Err(ErrorKind::Interrupted.into());
        }
        match reader.next_piece()? {
            Piece::Chunk(_, bytes) => read += bytes.len() as u64,
            Piece::Pending => return wrong("its end is missing"),
            Piece::End if read == output_bytes => return Ok(()),
            Piece::End => return wrong("it is shorter than it should be"),
        }
        if read > output_bytes {
            return wrong("it is longer than it should be");
        }
    }
}
