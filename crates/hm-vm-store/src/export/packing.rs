//! Archive, digests and compressed file in one pass.
//!
//! The calling thread reads files, makes the archive and digests it; a thread of its own compresses that, digests the
//! result and writes it to a file without a name. Settings of the compression are fixed: the same archive gives the same
//! bytes, as long as the compressing library does.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::GzBuilder;
use hm_vm_core::Cancellation;
use hm_vm_oci::{Compression, Digest, Hasher};
use rustix::fs::{Mode, OFlags};

use super::tree::{Failure, Form, LeftOut, write_tree};
use crate::error::{Context, StoreError};
use crate::store::Core;

/// Bytes that go from one thread to the other at once, and how many of those may be under way.
const CHUNK: usize = 512 << 10;
const CHUNKS: usize = 8;

const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;

/// A packed tree.
#[derive(Debug)]
pub(super) struct Packed {
    /// Digest of the archive.
    pub(super) diff_id: Digest,
    /// Digest and length of the file.
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) file: PackedFile,
    pub(super) notices: Vec<String>,
}

/// A file without a name, which goes with its last reader.
#[derive(Clone, Debug)]
pub(super) struct PackedFile(Arc<File>);

impl PackedFile {
    /// Its bytes from the first one on, whoever else reads.
    pub(super) fn open(&self) -> Box<dyn Read + Send> {
        Box::new(Reader {
            file: Arc::clone(&self.0),
            offset: 0,
        })
    }
}

struct Reader {
    file: Arc<File>,
    offset: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Packs the tree at `root`.
pub(super) fn pack(
    core: &Core,
    root: &Path,
    form: Form,
    compression: Compression,
    cancel: &Cancellation,
) -> Result<Packed, StoreError> {
    let file = Arc::new(unnamed_file(core)?);
    let (full, to_pack) = sync_channel::<Vec<u8>>(CHUNKS);
    let (to_fill, empty) = sync_channel::<Vec<u8>>(CHUNKS + 2);
    let (read, packed) = std::thread::scope(|scope| {
        let packer = scope.spawn(|| compress(compression, to_pack, &to_fill, &file));
        let mut sink = Sink {
            full,
            empty,
            chunk: Vec::with_capacity(CHUNK),
            hasher: Hasher::default(),
            cancel,
        };
        let read = core.files.run(|| {
            let left_out = write_tree(root, form, &mut sink)?;
            sink.send().map_err(|_| Failure::Writing)?;
            Ok(left_out)
        });
        let diff_id = sink.hasher.finish();
        // The end of the archive, whole or not.
        drop((sink.full, sink.empty));
        let packed = packer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (
            read.map(|read| read.map(|left_out| (diff_id, left_out))),
            packed,
        )
    });
    cancel.check().map_err(StoreError::Cancelled)?;
    let (digest, size) = packed.context("writing a layer's archive in", core.layout.tmp())?;
    let (diff_id, left_out): (Digest, LeftOut) = read?.map_err(|failure| failed(root, failure))?;
    Ok(Packed {
        diff_id,
        digest,
        size,
        file: PackedFile(file),
        notices: left_out.notices(),
    })
}

fn failed(root: &Path, failure: Failure) -> StoreError {
    match failure {
        Failure::Reading(path, source) => StoreError::Io {
            doing: "reading",
            path: root.join(path.strip_prefix("/").unwrap_or(&path)),
            source,
        },
        Failure::Unfit(path, reason) => StoreError::invalid(path.display().to_string(), reason),
        Failure::Writing => StoreError::Io {
            doing: "packing",
            path: root.to_owned(),
            source: io::ErrorKind::BrokenPipe.into(),
        },
    }
}

/// Digests an archive, and passes it on in large pieces.
struct Sink<'a> {
    full: SyncSender<Vec<u8>>,
    /// Buffers that come back.
    empty: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    hasher: Hasher,
    cancel: &'a Cancellation,
}

impl Sink<'_> {
    fn send(&mut self) -> io::Result<()> {
        if self.cancel.check().is_err() {
            // Not `Interrupted`, which means: try again.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.hasher.update(&self.chunk);
        let mut next = match self.empty.try_recv() {
            Ok(chunk) => chunk,
            Err(_) => Vec::with_capacity(CHUNK),
        };
        next.clear();
        let chunk = std::mem::replace(&mut self.chunk, next);
        let sent = self.full.send(chunk);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == CHUNK {
            self.send()?;
        }
        let count = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses what comes until it ends. Returns digest and length of what was written.
fn compress(
    compression: Compression,
    full: Receiver<Vec<u8>>,
    empty: &SyncSender<Vec<u8>>,
    file: &File,
) -> io::Result<(Digest, u64)> {
    let output = Output {
        file,
        hasher: Hasher::default(),
        size: 0,
    };
    let mut output = io::BufWriter::with_capacity(CHUNK, output);
    match compression {
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(&mut output, ZSTD_LEVEL)?;
            forward(full, empty, &mut encoder)?;
            encoder.finish()?;
        }
        Compression::Gzip => {
            let level = flate2::Compression::new(GZIP_LEVEL);
            let mut encoder = GzBuilder::new().mtime(0).write(&mut output, level);
            forward(full, empty, &mut encoder)?;
            encoder.finish()?;
        }
        Compression::None | Compression::Unknown => forward(full, empty, &mut output)?,
    }
    let output = output
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    Ok((output.hasher.finish(), output.size))
}

fn forward(
    full: Receiver<Vec<u8>>,
    empty: &SyncSender<Vec<u8>>,
    to: &mut dyn Write,
) -> io::Result<()> {
    for chunk in full {
        to.write_all(&chunk)?;
        // Nobody may want it back any more.
        let _ = empty.try_send(chunk);
    }
    Ok(())
}

struct Output<'a> {
    file: &'a File,
    hasher: Hasher,
    size: u64,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file in the store's `tmp` that is gone when nobody has it open.
fn unnamed_file(core: &Core) -> Result<File, StoreError> {
    let directory = core.layout.tmp();
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(&directory, flags, mode) {
        Ok(file) => return Ok(file.into()),
        // Not every file system can do it.
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::ISDIR) => {}
        Err(errno) => return Err(errno).context("creating a file in", &directory),
    }
    let path = core.layout.new_tmp(core.session.id);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, mode).context("creating", &path)?;
    std::fs::remove_file(&path).context("removing", &path)?;
    Ok(file.into())
}
