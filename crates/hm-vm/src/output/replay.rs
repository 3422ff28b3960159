//! Delivering stored output again.

use std::fs::File;
use std::io::{self, BufReader, Read};

use hm_vm_core::{OutputDecoder, OutputSink, Stream};
use zstd::stream::read::Decoder;

use super::files::LogFiles;
use super::{END, STDERR, STDOUT};

/// Most that is held in memory and delivered at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Why stored output could not be delivered whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The file is not there.
    #[error("its file is missing")]
    Missing,
    /// The file is damaged, or cannot be read.
    #[error("its file cannot be read")]
    Unreadable(#[source] io::Error),
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            Self::Missing
        } else {
            Self::Unreadable(error)
        }
    }
}

/// Stored output on its way to a sink, piece by piece.
pub(crate) struct Replay {
    records: Decoder<'static, BufReader<File>>,
    decoder: OutputDecoder,
    stream: Stream,
    /// Bytes of the current record still to come.
    remaining: usize,
    delivered: u64,
    piece: Vec<u8>,
}

impl Replay {
    pub(crate) fn open(files: &LogFiles, name: &str) -> Result<Self, ReplayError> {
        let file = files.open(name)?;
        Ok(Self {
            records: Decoder::new(file)?,
            decoder: OutputDecoder::new(),
            stream: Stream::Stdout,
            remaining: 0,
            delivered: 0,
            piece: Vec::new(),
        })
    }

    /// Delivers up to `PIECE_BYTES` of output. `false` at the end. What has no line end is delivered by
    /// [`finish`](Self::finish), which must follow, after a failure too.
    pub(crate) fn deliver(&mut self, sink: &dyn OutputSink) -> Result<bool, ReplayError> {
        let mut budget = PIECE_BYTES;
        while budget > 0 {
            if self.remaining == 0 && !self.next_record()? {
                return Ok(false);
            }
            let length = self.remaining.min(budget);
            self.piece.resize(length, 0);
            self.records.read_exact(&mut self.piece)?;
            self.decoder.push(self.stream, &self.piece, sink);
            self.remaining -= length;
            self.delivered += length as u64;
            budget -= length;
        }
        Ok(true)
    }

    /// Delivers what has no line end.
    pub(crate) fn finish(&mut self, sink: &dyn OutputSink) {
        self.decoder.finish(sink);
    }

    /// Reads the head of the next record. `false` at the end of all.
    fn next_record(&mut self) -> Result<bool, ReplayError> {
        let corrupt =
            |what: &str| ReplayError::Unreadable(io::Error::new(io::ErrorKind::InvalidData, what));
        let mut tag = [0u8; 1];
        self.records.read_exact(&mut tag)?;
        self.stream = match tag[0] {
            STDOUT => Stream::Stdout,
            STDERR => Stream::Stderr,
            END => {
                let mut total = [0u8; 8];
                self.records.read_exact(&mut total)?;
                // Reading on to the end makes the checksum count.
                if u64::from_le_bytes(total) != self.delivered || self.records.read(&mut tag)? != 0
                {
                    return Err(corrupt("its end does not fit"));
                }
                return Ok(false);
            }
            _ => return Err(corrupt("unknown record")),
        };
        let mut length = [0u8; 4];
        self.records.read_exact(&mut length)?;
        self.remaining =
            usize::try_from(u32::from_le_bytes(length)).map_err(|_| corrupt("record too long"))?;
        Ok(true)
    }
}
