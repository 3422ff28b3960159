//! Which compression an archive has, told by its first bytes.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::ImportError;

/// Bytes of memory that an xz stream may ask for. The strongest preset takes 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;

/// Takes the compression off a stream. All members of a concatenation are read.
pub(super) fn decompress<'a>(
    input: &'a mut dyn Read,
    name: &Path,
) -> Result<Box<dyn Read + 'a>, ImportError> {
    let mut input = BufReader::with_capacity(128 * 1024, input);
    let start = loop {
        match input.fill_buf() {
            Ok(start) => break start,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ImportError::file("reading", name, error)),
        }
    };
    let failed = |error| ImportError::file("reading", name, error);
    Ok(match start {
        [] => return Err(ImportError::invalid(name, "it is empty")),
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?)
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let stream =
                xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, xz2::stream::CONCATENATED)
                    .map_err(|error| failed(error.into()))?;
            Box::new(xz2::bufread::XzDecoder::new_stream(input, stream))
        }
        [b'B', b'Z', b'h', ..] => {
            let reason = "bzip2 is not supported: recompress it with gzip, zstd or xz";
            return Err(ImportError::invalid(name, reason));
        }
        _ => Box::new(input),
    })
}

/// Ends a stream with an error when it gives more than it may.
pub(super) struct Limited<'a> {
    input: Box<dyn Read + 'a>,
    left: u64,
    limit: u64,
}

impl<'a> Limited<'a> {
    pub(super) fn new(input: Box<dyn Read + 'a>, limit: u64) -> Self {
        Self {
            input,
            left: limit,
            limit,
        }
    }
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(ImportError::LimitExceeded {
                limit: self.limit,
                unit: "bytes",
            })
        })?;
        Ok(count)
    }
}
