//! Delivering stored output again.

use std::io::{self, ErrorKind};

use hm_vm_core::{OutputDecoder, OutputSink};

use super::files::LogFiles;
use super::reader::{LogReader, Piece};

/// About as much is delivered at once.
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
        if error.kind() == ErrorKind::NotFound {
            Self::Missing
        } else {
            Self::Unreadable(error)
        }
    }
}

/// Stored output on its way to a sink, piece by piece.
pub(crate) struct Replay {
    reader: LogReader,
    decoder: OutputDecoder,
}

impl Replay {
    pub(crate) fn open(files: &LogFiles, name: &str) -> Result<Self, ReplayError> {
        Ok(Self {
            reader: LogReader::new(files.open(name)?)?,
            decoder: OutputDecoder::new(),
        })
    }

    /// Delivers some output. `false` at the end. What has no line end is delivered by
    /// [`finish`](Self::finish), which must follow, after a failure too.
    pub(crate) fn deliver(&mut self, sink: &dyn OutputSink) -> Result<bool, ReplayError> {
        let mut delivered = 0;
        while delivered < PIECE_BYTES {
            match self.reader.next_piece()? {
                Piece::Chunk(record, bytes) => {
                    delivered += bytes.len();
                    self.decoder.push(record.stream, bytes, sink);
                }
                Piece::End => return Ok(false),
                Piece::Pending => {
                    let error = io::Error::new(ErrorKind::UnexpectedEof, "its end is missing");
                    return Err(error.into());
                }
            }
        }
        Ok(true)
    }

    /// Delivers what has no line end.
    pub(crate) fn finish(&mut self, sink: &dyn OutputSink) {
        self.decoder.finish(sink);
    }
}
