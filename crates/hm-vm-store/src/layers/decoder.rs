//! Takes the compression off a layer.

use std::io::{self, BufRead, BufReader, Read};

use hm_vm_core::Progress;
use hm_vm_oci::{Descriptor, OciError, Verified};

use super::windows::{
    LARGE_WINDOW, LargeWindow, SMALL_WINDOW, XZ_MEMORY, large_window, zstd_window,
};
use crate::error::StoreError;

/// Bytes that are read from the source at once.
const INPUT_BYTES: usize = 128 * 1024;

type Input = BufReader<Verified<Counted>>;

/// Counts what comes.
pub(super) struct Counted {
    input: Box<dyn Read + Send>,
    progress: Progress,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.progress.add(count as u64);
        Ok(count)
    }
}

enum Stream {
    Plain(Input),
    Gzip(flate2::bufread::MultiGzDecoder<Input>),
    Zstd(zstd::Decoder<'static, Input>),
    Xz(xz2::bufread::XzDecoder<Input>),
}

/// A layer's bytes, verified, without compression.
pub(super) struct Decoder {
    stream: Stream,
    blob: Descriptor,
    _window: Option<LargeWindow>,
}

impl Decoder {
    /// Tells the compression by the first bytes: what manifests say of it is not always right.
    pub(super) fn new(
        input: Box<dyn Read + Send>,
        blob: &Descriptor,
        progress: Progress,
    ) -> Result<Self, StoreError> {
        let counted = Counted { input, progress };
        let mut input = BufReader::with_capacity(INPUT_BYTES, Verified::new(counted, blob));
        let failed = |error| failure(blob, error);
        let start = loop {
            match input.fill_buf() {
                Ok(start) => break start,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        };
        let mut window = None;
        let stream = match start {
            [0x1f, 0x8b, ..] => Stream::Gzip(flate2::bufread::MultiGzDecoder::new(input)),
            // The second one is a frame that is to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut log = SMALL_WINDOW;
                if zstd_window(start).is_none_or(|asked| asked > SMALL_WINDOW) {
                    (window, log) = (Some(large_window()), LARGE_WINDOW);
                }
                let mut decoder = zstd::Decoder::with_buffer(input).map_err(failed)?;
                decoder.window_log_max(log).map_err(failed)?;
                Stream::Zstd(decoder)
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                window = Some(large_window());
                let flags = xz2::stream::CONCATENATED;
                let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, flags)
                    .map_err(|error| failed(error.into()))?;
                Stream::Xz(xz2::bufread::XzDecoder::new_stream(input, stream))
            }
            [b'B', b'Z', b'h', ..] => {
                let reason = "it is compressed with bzip2, which is not supported";
                return Err(bad(blob, reason));
            }
            _ => Stream::Plain(input),
        };
        Ok(Self {
            stream,
            blob: blob.clone(),
            _window: window,
        })
    }

    /// Fills the buffer as far as there is something. `Ok(0)` is the end, and all bytes were right.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.explain(error)),
            }
        }
        if filled == 0 {
            // Compression may end before the bytes do.
            self.verify()?;
        }
        Ok(filled)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Gzip(stream) => stream.read(buffer),
            Stream::Zstd(stream) => stream.read(buffer),
            Stream::Xz(stream) => stream.read(buffer),
        }
    }

    /// Checks what is left of the bytes.
    pub(super) fn verify(&mut self) -> Result<(), StoreError> {
        let input = match &mut self.stream {
            Stream::Plain(stream) => stream,
            Stream::Gzip(stream) => stream.get_mut(),
            Stream::Zstd(stream) => stream.get_mut(),
            Stream::Xz(stream) => stream.get_mut(),
        };
        input
            .get_mut()
            .drain()
            .map_err(|error| failure(&self.blob, error))
    }

    /// Compression that is damaged mostly means that the bytes are not the right ones: that is said instead then.
    fn explain(&mut self, error: io::Error) -> StoreError {
        if let Err(wrong) = is_sources(&error)
            .then_some(())
            .map_or_else(|| self.verify(), Ok)
        {
            return wrong;
        }
        failure(&self.blob, error)
    }
}

/// Whether it was the source that failed, and not the decompression.
fn is_sources(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<OciError>())
}

fn failure(blob: &Descriptor, error: io::Error) -> StoreError {
    match error.downcast::<OciError>() {
        Ok(error) => error.into(),
        Err(error) => bad(blob, format!("it is damaged: {error}")),
    }
}

fn bad(blob: &Descriptor, reason: impl Into<String>) -> StoreError {
    OciError::invalid(format!("layer {}", blob.digest), reason).into()
}
