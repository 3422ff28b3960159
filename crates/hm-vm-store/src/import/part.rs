//! Unpacking a part of an archive, which is taken to be hostile, for its files' sake alone.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::FileType;
use tar::EntryType;

use super::archive::{ArchiveReader, Member};
use super::root_writer::{Attributes, RootWriter};
use super::space::SpaceWatch;
use super::tar_archive::{copy_data, plain_path};
use super::{ImportError, ImportOptions};
use crate::beneath::{as_path, open_root};
use crate::content::BUFFER_BYTES;

/// As many bytes may the paths of files take that lie outside of the part, but under which those in it are known.
const LINK_BYTES: usize = 16 << 20;

/// What becomes of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placing {
    /// It is left out.
    Leave,
    /// It is brought to this path.
    Take(Vec<u8>),
    /// So, and what comes behind it is not looked at.
    Last(Vec<u8>),
}

/// Hard links whose file is outside of the part: for each such file's path in the archive, where it is to be.
pub(crate) type Wanted = HashMap<Vec<u8>, Vec<Vec<u8>>>;

/// Unpacks the members for which `place` has a path below `dest`, an existing directory, where other parts may be already.
/// Directories that lead to them are made. Everything belongs to the caller, who can read it all; set-id and sticky bits and extended
/// attributes are dropped; what is neither file, directory nor link becomes a fifo. Returns the hard links that could not be
/// made: a second call for the same archive, with `place` telling where their files are to be, and [`link_others`], make them.
///
/// # Errors
///
/// [`ImportError`]; a part may have been written then.
pub(crate) fn unpack_part(
    archive: &mut dyn Read,
    name: &Path,
    dest: &Path,
    place: &mut dyn FnMut(&[u8]) -> Placing,
) -> Result<Wanted, ImportError> {
    let root = open_root(dest)?;
    let options = ImportOptions::default();
    let mut unpacker = Unpacker {
        reader: ArchiveReader::new(archive, name),
        writer: RootWriter::new(&root, &options),
        root: &root,
        space: SpaceWatch::new(),
        buffer: vec![0; BUFFER_BYTES],
        wanted: Wanted::new(),
        link_bytes: 0,
    };
    while let Some(member) = unpacker.reader.next()? {
        unpacker.writer.count_entry()?;
        unpacker.space.entry(&root)?;
        let from = plain_path(&member.path)?;
        let (to, is_last) = match place(&from) {
            Placing::Leave => continue,
            Placing::Take(to) => (to, false),
            Placing::Last(to) => (to, true),
        };
        unpacker.unpack(&member, &to, place)?;
        if is_last {
            unpacker.writer.finish_directories()?;
            return Ok(unpacker.wanted);
        }
    }
    if unpacker.reader.end_mark_missing {
        return Err(unpacker.reader.cut_off());
    }
    unpacker.writer.finish_directories()?;
    Ok(unpacker.wanted)
}

/// Makes the hard links beside the first one of each file.
pub(crate) fn link_others(dest: &Path, wanted: &Wanted) -> Result<(), ImportError> {
    let root = open_root(dest)?;
    let options = ImportOptions::default();
    let mut writer = RootWriter::new(&root, &options);
    for paths in wanted.values() {
        let Some((first, others)) = paths.split_first() else {
            continue;
        };
        for other in others {
            writer.hard_link(other, first)?;
        }
    }
    Ok(())
}

struct Unpacker<'a> {
    reader: ArchiveReader<'a>,
    writer: RootWriter<'a>,
    root: &'a OwnedFd,
    space: SpaceWatch,
    buffer: Vec<u8>,
    wanted: Wanted,
    link_bytes: usize,
}

impl Unpacker<'_> {
    fn unpack(
        &mut self,
        member: &Member,
        to: &[u8],
        place: &mut dyn FnMut(&[u8]) -> Placing,
    ) -> Result<(), ImportError> {
        let readable = match member.kind {
            EntryType::Directory => 0o700,
            _ => 0o400,
        };
        let attributes = Attributes {
            mode: member.mode & 0o777 | if is_root() { 0 } else { readable },
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime_ns: Some(member.mtime_ns),
            xattrs: Vec::new(),
        };
        match member.kind {
            EntryType::Directory => self.writer.directory(to, attributes),
            EntryType::Regular | EntryType::Continuous => {
                self.writer.count_bytes(member.size)?;
                self.space.bytes(self.root, member.size)?;
                let (reader, buffer) = (&mut self.reader, &mut self.buffer);
                let regions = member.regions.as_deref();
                self.writer.file(to, &attributes, &mut |_, file| {
                    copy_data(reader, file, member.size, regions, buffer)
                })
            }
            EntryType::Symlink if member.target.is_empty() || member.target.contains(&0) => {
                Err(ImportError::invalid(as_path(to), "a link without a target"))
            }
            EntryType::Symlink => self.writer.symlink(to, &member.target, &attributes),
            EntryType::Link => self.hard_link(to, &member.target, place),
            _ => self
                .writer
                .node(to, FileType::Fifo, 0, &attributes)
                .map(drop),
        }
    }

    fn hard_link(
        &mut self,
        to: &[u8],
        target: &[u8],
        place: &mut dyn FnMut(&[u8]) -> Placing,
    ) -> Result<(), ImportError> {
        let target = plain_path(target)?;
        if let Placing::Take(placed) | Placing::Last(placed) = place(&target)
            && self.writer.hard_link(to, &placed)?
        {
            return Ok(());
        }
        self.link_bytes += to.len() + target.len() + 128;
        if self.link_bytes > LINK_BYTES {
            return Err(ImportError::LimitExceeded {
                limit: LINK_BYTES as u64,
                unit: "bytes of hard links to files that are not asked for",
            });
        }
        self.wanted.entry(target).or_default().push(to.to_owned());
        Ok(())
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
