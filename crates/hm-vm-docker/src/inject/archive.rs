//! A scanned tree as a tar archive, made piece by piece.

use std::time::SystemTime;

use hm_vm_core::Progress;
use hm_vm_store::inject::{Entry, EntryKind, InjectError, SourceDirectory, SourceReader, Tree};
use tar::{EntryType, Header};

const BLOCK: usize = 512;

/// Bytes that are handed on at once.
const PIECE: usize = 256 << 10;

/// Names and targets that are longer stand in an extended header.
const SHORT: usize = 100;

/// Sizes that are larger do not fit into a plain header.
const LARGE: u64 = 1 << 33;

/// Why no archive was made.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// Nobody takes it any more.
    Stopped,
    /// The host's directory could not be read, or is not what it was.
    Source(InjectError),
}

impl From<InjectError> for Unfinished {
    fn from(error: InjectError) -> Self {
        Self::Source(error)
    }
}

/// What the archive is made of.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    pub(super) tree: &'a Tree,
    pub(super) source: &'a SourceDirectory,
    /// Directories that do not exist where the archive is unpacked, from the outermost: all is in the last of them.
    pub(super) prefix: &'a [String],
    /// Where files and links are counted.
    pub(super) progress: &'a Progress,
}

/// Makes the archive; `hand_on` takes it, piece by piece, and says whether to go on. Blocks.
///
/// Everything belongs to root. The directory that it is unpacked to is not in it: that keeps its mode.
pub(super) fn write(
    contents: &Contents<'_>,
    hand_on: &mut dyn FnMut(Vec<u8>) -> bool,
) -> Result<(), Unfinished> {
    let mut writer = Writer {
        piece: Vec::with_capacity(PIECE),
        hand_on,
    };
    let mut path = Vec::new();
    let now = nanoseconds(SystemTime::now());
    for name in contents.prefix {
        path.extend_from_slice(name.as_bytes());
        path.push(b'/');
        writer.header(&Member::new(&path, EntryType::Directory, 0o755, now))?;
    }
    let mut reader = contents.source.reader();
    let above = path.len();
    for entry in contents.tree.entries() {
        path.truncate(above);
        path.extend_from_slice(entry.path);
        writer.entry(&entry, &mut path, &mut reader)?;
        if entry.kind != EntryKind::Directory {
            contents.progress.add(1);
        }
    }
    writer.put(&[0; 2 * BLOCK])?;
    writer.flush()
}

fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(0))
}

/// What a header says.
struct Member<'a> {
    path: &'a [u8],
    kind: EntryType,
    mode: u32,
    mtime_ns: i64,
    size: u64,
    target: &'a [u8],
}

impl<'a> Member<'a> {
    fn new(path: &'a [u8], kind: EntryType, mode: u32, mtime_ns: i64) -> Self {
        Self {
            path,
            kind,
            mode,
            mtime_ns,
            size: 0,
            target: &[],
        }
    }

    /// What does not fit into the plain header.
    fn extension(&self) -> Vec<u8> {
        let mut records = Vec::new();
        if self.path.len() > SHORT {
            put_record(&mut records, "path", self.path);
        }
        if self.target.len() > SHORT {
            put_record(&mut records, "linkpath", self.target);
        }
        if self.size >= LARGE {
            put_record(&mut records, "size", self.size.to_string().as_bytes());
        }
        if self.mtime_ns < 0 || self.mtime_ns % 1_000_000_000 != 0 {
            let sign = if self.mtime_ns < 0 { "-" } else { "" };
            let time = self.mtime_ns.unsigned_abs();
            let (seconds, rest) = (time / 1_000_000_000, time % 1_000_000_000);
            let time = format!("{sign}{seconds}.{rest:09}");
            put_record(&mut records, "mtime", time.as_bytes());
        }
        records
    }

    fn plain(&self) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(self.size);
        header.set_mtime(u64::try_from(self.mtime_ns / 1_000_000_000).unwrap_or(0));
        let block = header.as_mut_bytes();
        let name = &self.path[..self.path.len().min(SHORT)];
        block[..name.len()].copy_from_slice(name);
        let target = &self.target[..self.target.len().min(SHORT)];
        block[157..157 + target.len()].copy_from_slice(target);
        header.set_cksum();
        header
    }
}

/// A record of an extended header. Its length counts the digits of the length as well.
fn put_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length += 1;
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

struct Writer<'a> {
    piece: Vec<u8>,
    hand_on: &'a mut dyn FnMut(Vec<u8>) -> bool,
}

impl Writer<'_> {
    /// `path` is where the entry is to be.
    fn entry(
        &mut self,
        entry: &Entry<'_>,
        path: &mut Vec<u8>,
        reader: &mut SourceReader<'_>,
    ) -> Result<(), Unfinished> {
        match entry.kind {
            EntryKind::Directory => {
                path.push(b'/');
                let kind = EntryType::Directory;
                self.header(&Member::new(path, kind, entry.mode, entry.mtime_ns))
            }
            EntryKind::Symlink { target } => self.header(&Member {
                target,
                ..Member::new(path, EntryType::Symlink, 0o777, entry.mtime_ns)
            }),
            EntryKind::File { size, .. } => {
                let mut file = reader.open(entry)?;
                self.header(&Member {
                    size,
                    ..Member::new(path, EntryType::Regular, entry.mode, file.mtime_ns())
                })?;
                loop {
                    let filled = self.piece.len();
                    self.piece.resize(PIECE, 0);
                    let read = file.read(&mut self.piece[filled..]);
                    self.piece.truncate(filled + read.as_ref().unwrap_or(&0));
                    if read? == 0 {
                        break;
                    }
                    self.flush_if_full()?;
                }
                let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0);
                self.put(&[0; BLOCK][..padding])
            }
        }
    }

    fn header(&mut self, member: &Member<'_>) -> Result<(), Unfinished> {
        let records = member.extension();
        if !records.is_empty() {
            let mut extension = Member::new(b"PaxHeaders/entry", EntryType::XHeader, 0o644, 0);
            extension.size = records.len() as u64;
            self.put(extension.plain().as_bytes())?;
            self.put(&records)?;
            let padding = records.len().wrapping_neg() % BLOCK;
            self.put(&[0; BLOCK][..padding])?;
        }
        self.put(member.plain().as_bytes())
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), Unfinished> {
        while !bytes.is_empty() {
            let count = bytes.len().min(PIECE - self.piece.len());
            self.piece.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.flush_if_full()?;
        }
        Ok(())
    }

    fn flush_if_full(&mut self) -> Result<(), Unfinished> {
        if self.piece.len() < PIECE {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Unfinished> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        match (self.hand_on)(piece) {
            true => Ok(()),
            false => Err(Unfinished::Stopped),
        }
    }
}

#[cfg(test)]
mod tests;
