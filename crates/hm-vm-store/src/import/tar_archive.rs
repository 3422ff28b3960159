//! Unpacking a tar archive, which is taken to be hostile.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use hm_vm_core::{Progress, ProgressUnit};
use rustix::fs::{FileType, makedev};
use tar::EntryType;

use super::archive::{ArchiveReader, Member};
use super::compression::{Limited, decompress};
use super::notices::Lost;
use super::root_writer::{Attributes, RootWriter, content_writer};
use super::{ImportError, ImportOptions, ImportReport};
use crate::beneath::{as_path, join, open_root};
use crate::content::{BUFFER_BYTES, Content};

/// Unpacks the archive file `archive` into `dest`, an existing empty directory. As
/// [`unpack_tar_from`].
///
/// # Errors
///
/// [`ImportError`]; `dest` is left half-written then.
pub fn unpack_tar(
    archive: &Path,
    dest: &Path,
    options: &ImportOptions,
) -> Result<ImportReport, ImportError> {
    let mut file =
        File::open(archive).map_err(|error| ImportError::file("opening", archive, error))?;
    let bytes = file.metadata().ok().filter(Metadata::is_file);
    let bytes = bytes.map(|metadata| metadata.len());
    options.progress.begin(ProgressUnit::Bytes, bytes);
    let report = unpack_tar_from(&mut file, archive, dest, options)?;
    // What follows the end mark is not read.
    options.progress.complete();
    Ok(report)
}

/// Unpacks an archive, plain or compressed with gzip, zstd or xz (told by its first bytes).
/// `name` stands for it in errors.
///
/// * A `/` at the beginning of a path is taken off, as tar does. A path with `..` is refused, and
///   so is one that leads through a symbolic link or a file, an empty one, and one with NUL.
/// * A later entry replaces an earlier one of the same path; a directory replaces none but gives
///   new attributes.
/// * Hard links lead to earlier entries; their targets are treated like paths.
/// * Extended attributes in `SCHILY.xattr` records are kept as [`copy_directory`] keeps them.
/// * Sparse files and runs of zeros become holes.
///
/// Starts no thread: it can be called inside `UserNamespace::run`.
///
/// # Errors
///
/// [`ImportError`]; `dest` is left half-written then.
///
/// [`copy_directory`]: super::copy_directory
pub fn unpack_tar_from(
    archive: &mut dyn Read,
    name: &Path,
    dest: &Path,
    options: &ImportOptions,
) -> Result<ImportReport, ImportError> {
    let root = open_root(dest)?;
    let limits = options.limits;
    // Headers take a block at least, and long names more.
    let headers = limits.entries.saturating_mul(2048);
    let mut counted = Counted {
        input: archive,
        progress: &options.progress,
    };
    let stream = decompress(&mut counted, name)?;
    let mut stream = Limited::new(stream, limits.bytes.saturating_add(headers));
    let mut unpacker = Unpacker {
        reader: ArchiveReader::new(&mut stream, name),
        writer: RootWriter::new(&root, options),
        left_out: HashSet::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    while let Some(member) = unpacker.reader.next()? {
        unpacker.writer.count_entry()?;
        unpacker.unpack(member)?;
    }
    if unpacker.writer.entries() == 0 {
        return Err(ImportError::invalid(name, "no entries in the archive"));
    }
    if unpacker.reader.end_mark_missing {
        let notice = "the archive has no end mark: it may have been cut off";
        unpacker.writer.notices.say(notice);
    }
    unpacker.writer.finish()
}

/// Counts what is read of the archive.
struct Counted<'a> {
    input: &'a mut dyn Read,
    progress: &'a Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.progress.add(count as u64);
        Ok(count)
    }
}

struct Unpacker<'a> {
    reader: ArchiveReader<'a>,
    writer: RootWriter<'a>,
    /// Paths of entries that were left out, to which links may lead.
    left_out: HashSet<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn unpack(&mut self, member: Member) -> Result<(), ImportError> {
        let path = plain_path(&member.path)?;
        let attributes = Attributes {
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            mtime_ns: Some(member.mtime_ns),
            xattrs: member.xattrs,
        };
        match member.kind {
            EntryType::Directory => self.writer.directory(&path, attributes),
            EntryType::Regular | EntryType::Continuous => {
                self.writer.count_bytes(member.size)?;
                let (reader, buffer) = (&mut self.reader, &mut self.buffer);
                let regions = member.regions.as_deref();
                self.writer.file(&path, &attributes, &mut |_, file| {
                    copy_data(reader, file, member.size, regions, buffer)
                })
            }
            EntryType::Symlink if member.target.is_empty() || member.target.contains(&0) => Err(
                ImportError::invalid(as_path(&path), "a link without a target"),
            ),
            EntryType::Symlink => self.writer.symlink(&path, &member.target, &attributes),
            EntryType::Link => self.hard_link(&path, &member.target),
            EntryType::Fifo => self.node(&path, FileType::Fifo, (0, 0), &attributes),
            EntryType::Char => {
                self.node(&path, FileType::CharacterDevice, member.device, &attributes)
            }
            EntryType::Block => self.node(&path, FileType::BlockDevice, member.device, &attributes),
            _ => {
                self.writer.notices.lost(Lost::OtherKind, &path);
                self.left_out.insert(path);
                Ok(())
            }
        }
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), ImportError> {
        let target = plain_path(target)?;
        if target.is_empty() {
            return Err(ImportError::invalid(as_path(path), "a link to the root"));
        }
        if self.writer.hard_link(path, &target)? {
            return Ok(());
        }
        if self.left_out.contains(&target) {
            self.writer.notices.lost(Lost::LinkToOmitted, path);
            self.left_out.insert(path.to_owned());
            return Ok(());
        }
        let target = as_path(&target).display();
        let reason = format!("it is a hard link to {target}, which does not come before it");
        Err(ImportError::invalid(as_path(path), reason))
    }

    fn node(
        &mut self,
        path: &[u8],
        kind: FileType,
        (major, minor): (u32, u32),
        attributes: &Attributes,
    ) -> Result<(), ImportError> {
        let device = makedev(major, minor);
        if !self.writer.node(path, kind, device, attributes)? {
            self.left_out.insert(path.to_owned());
        }
        Ok(())
    }
}

/// Path below the root: without `/` at its ends, `.` and doubled slashes. Empty for the root.
pub(super) fn plain_path(path: &[u8]) -> Result<Vec<u8>, ImportError> {
    let invalid = |reason: &str| Err(ImportError::invalid(as_path(path), reason));
    if path.is_empty() {
        return invalid("an entry without a name");
    }
    if path.contains(&0) {
        return invalid("NUL in a path");
    }
    let mut plain = Vec::with_capacity(path.len());
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return invalid("\"..\" in a path"),
            name => plain = join(&plain, name),
        }
    }
    Ok(plain)
}

/// Writes a member's content, its holes included.
pub(super) fn copy_data(
    reader: &mut ArchiveReader<'_>,
    file: &OwnedFd,
    size: u64,
    regions: Option<&[(u64, u64)]>,
    buffer: &mut [u8],
) -> Result<Content, ImportError> {
    let failed = |errno| ImportError::file("writing", Path::new("a file of the image"), errno);
    let whole = [(0, size)];
    let mut writer = content_writer(file);
    let mut position = 0;
    for &(offset, length) in regions.unwrap_or(&whole) {
        writer
            .write_zeros(offset - position, buffer)
            .map_err(failed)?;
        let mut left = length;
        while left > 0 {
            let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            // Whole buffers keep blocks of zeros where they are blocks of the file.
            let mut filled = 0;
            while filled < most {
                match reader.read_data(&mut buffer[filled..most])? {
                    // The lengths were compared before; this does not happen.
                    0 => {
                        return Err(ImportError::invalid(
                            Path::new("archive"),
                            "data is missing",
                        ));
                    }
                    count => filled += count,
                }
            }
            writer.write(&buffer[..filled]).map_err(failed)?;
            left -= filled as u64;
        }
        position = offset + length;
    }
    writer
        .write_zeros(size - position, buffer)
        .map_err(failed)?;
    writer.finish().map_err(failed)
}
