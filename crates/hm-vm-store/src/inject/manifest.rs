//! A tree as bytes.
//!
//! ```text
//! "HMVMTREE" version:u8 entries:varint
//! per entry: kind:u8 mode:varint shared:varint rest:varint path-rest
//!            file: size:varint hash:32   symlink: length:varint target
//! digest of the tree: 32 bytes
//! ```
//!
//! `shared` counts the bytes that the path has in common with the one before. A varint has seven
//! bits a byte, lowest first. A reader accepts its own version alone.

use super::InjectError;
use super::tree::{Entry, EntryKind, Tree, TreeBuilder};

const MAGIC: &[u8; 8] = b"HMVMTREE";
const VERSION: u8 = 1;

impl Tree {
    /// The manifest as bytes, for storage beside the layer. Times and notices are not in it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() * 64 + 64);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        put_varint(&mut out, self.len() as u64);
        let mut previous: &[u8] = &[];
        for entry in self.entries() {
            put_entry(&mut out, previous, &entry);
            previous = entry.path;
        }
        out.extend_from_slice(self.digest().as_bytes());
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`InjectError::BadManifest`] when it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, InjectError> {
        let mut input = Input { bytes };
        if input.take(MAGIC.len())? != MAGIC {
            return Err(bad("it is something else"));
        }
        if input.take(1)? != [VERSION] {
            return Err(bad("it is of another version"));
        }
        let count = input.varint()?;
        // Each entry takes four bytes at least: a count that lies must not reserve memory.
        let likely = usize::try_from(count).unwrap_or(0).min(bytes.len() / 4);
        let mut builder = TreeBuilder::new(likely, bytes.len());
        let mut path = Vec::new();
        for _ in 0..count {
            let entry = input.entry(&mut path)?;
            if !is_relative(entry.path) || !builder.push(&entry) {
                return Err(bad("its paths are not in order"));
            }
        }
        let tree = builder.finish(Vec::new());
        if input.bytes != tree.digest().as_bytes() {
            return Err(bad("its digest does not fit"));
        }
        Ok(tree)
    }
}

fn bad(reason: &'static str) -> InjectError {
    InjectError::BadManifest { reason }
}

/// Whether the path has only names in it that can be below a directory.
fn is_relative(path: &[u8]) -> bool {
    !path.contains(&0)
        && path
            .split(|&byte| byte == b'/')
            .all(|name| !matches!(name, b"" | b"." | b".."))
}

fn put_entry(out: &mut Vec<u8>, previous: &[u8], entry: &Entry<'_>) {
    let shared = previous
        .iter()
        .zip(entry.path)
        .take_while(|(a, b)| a == b)
        .count();
    out.push(match entry.kind {
        EntryKind::Directory => b'd',
        EntryKind::File { .. } => b'f',
        EntryKind::Symlink { .. } => b'l',
    });
    put_varint(out, u64::from(entry.mode));
    put_varint(out, shared as u64);
    put_bytes(out, &entry.path[shared..]);
    match entry.kind {
        EntryKind::Directory => {}
        EntryKind::File { size, hash } => {
            put_varint(out, size);
            out.extend_from_slice(&hash);
        }
        EntryKind::Symlink { target } => put_bytes(out, target),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What is left to read.
struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], InjectError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or_else(|| bad("it is cut off"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, InjectError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(bad("a number in it is too large"))
    }

    fn length(&mut self) -> Result<usize, InjectError> {
        usize::try_from(self.varint()?).map_err(|_| bad("a number in it is too large"))
    }

    /// Reads an entry; `path` holds the path of the one before, and this one's afterwards.
    fn entry<'p>(&mut self, path: &'p mut Vec<u8>) -> Result<Entry<'p>, InjectError>
    where
        'a: 'p,
    {
        let kind = self.take(1)?[0];
        let mode = u32::try_from(self.varint()?)
            .ok()
            .filter(|mode| mode & !0o7777 == 0)
            .ok_or_else(|| bad("a mode in it is impossible"))?;
        let shared = self.length()?;
        if shared > path.len() {
            return Err(bad("a path in it is impossible"));
        }
        let rest = self.length()?;
        path.truncate(shared);
        path.extend_from_slice(self.take(rest)?);
        let kind = match kind {
            b'd' => EntryKind::Directory,
            b'f' => EntryKind::File {
                size: self.varint()?,
                hash: self
                    .take(32)?
                    .try_into()
                    .map_err(|_| bad("it is cut off"))?,
            },
            b'l' => {
                let length = self.length()?;
                EntryKind::Symlink {
                    target: self.take(length)?,
                }
            }
            _ => return Err(bad("an entry in it is of an unknown kind")),
        };
        Ok(Entry {
            path,
            kind,
            mode,
            mtime_ns: 0,
        })
    }
}
