//! The result of a scan.

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind<'tree> {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// BLAKE3 hash of the content.
        hash: [u8; 32],
    },
    /// A symbolic link.
    Symlink {
        /// Where it points to, any bytes.
        target: &'tree [u8],
    },
}

/// One entry of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'tree> {
    /// Path relative to the injected directory, any bytes but NUL; never empty.
    pub path: &'tree [u8],
    /// What it is.
    pub kind: EntryKind<'tree>,
    /// Permission bits with set-id and sticky bits (07777); 0777 for a symbolic link.
    pub mode: u32,
    /// Modification time in nanoseconds since 1970. Not part of the digest, not stored.
    pub mtime_ns: i64,
}

/// The entries of a scanned directory, sorted by the bytes of their paths, so that a directory
/// comes before what is in it.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    records: Vec<Record>,
    /// Paths and link targets of all entries.
    bytes: Vec<u8>,
    digest: String,
    notices: Vec<String>,
}

/// An entry, its bytes held by the tree.
#[derive(Clone, Copy, Debug)]
struct Record {
    path: Span,
    kind: RecordKind,
    mode: u32,
    mtime_ns: i64,
}

#[derive(Clone, Copy, Debug)]
enum RecordKind {
    Directory,
    File { size: u64, hash: [u8; 32] },
    Symlink { target: Span },
}

/// A part of the tree's bytes.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    length: usize,
}

impl Tree {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All entries, in order.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> + ExactSizeIterator {
        self.records.iter().map(|record| self.entry(record))
    }

    /// The entry of that number, in order.
    pub(crate) fn get(&self, index: usize) -> Option<Entry<'_>> {
        self.records.get(index).map(|record| self.entry(record))
    }

    /// The entry at `path`.
    pub fn find(&self, path: &[u8]) -> Option<Entry<'_>> {
        let index = self
            .records
            .binary_search_by(|record| self.slice(record.path).cmp(path))
            .ok()?;
        self.get(index)
    }

    /// Number of files and symbolic links.
    pub fn file_count(&self) -> u64 {
        let is_file = |record: &&Record| !matches!(record.kind, RecordKind::Directory);
        self.records.iter().filter(is_file).count() as u64
    }

    /// Bytes of all files together.
    pub fn total_bytes(&self) -> u64 {
        self.entries()
            .map(|entry| match entry.kind {
                EntryKind::File { size, .. } => size,
                _ => 0,
            })
            .sum()
    }

    /// BLAKE3 hash, in hex, of paths, kinds, modes, contents and link targets. Not of times,
    /// owners, inode numbers or the place of the directory.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Things that the user should know: entries that were left out because they are neither
    /// file, directory nor symbolic link, ignore rules that make no sense. Not stored.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    fn entry(&self, record: &Record) -> Entry<'_> {
        Entry {
            path: self.slice(record.path),
            kind: match record.kind {
                RecordKind::Directory => EntryKind::Directory,
                RecordKind::File { size, hash } => EntryKind::File { size, hash },
                RecordKind::Symlink { target } => EntryKind::Symlink {
                    target: self.slice(target),
                },
            },
            mode: record.mode,
            mtime_ns: record.mtime_ns,
        }
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.start + span.length]
    }
}

/// Two trees are equal when their digests are.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Tree {}

/// Puts a tree together from entries that come in order.
#[derive(Debug)]
pub(super) struct TreeBuilder {
    tree: Tree,
    hasher: blake3::Hasher,
    /// Encoded entries on their way into the hasher, which likes large pieces.
    pending: Vec<u8>,
}

impl TreeBuilder {
    pub(super) fn new(entries: usize, bytes: usize) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"hm-vm injected tree 1\n");
        Self {
            tree: Tree {
                records: Vec::with_capacity(entries),
                bytes: Vec::with_capacity(bytes),
                ..Tree::default()
            },
            hasher,
            pending: Vec::with_capacity(PENDING_BYTES + 8192),
        }
    }

    /// Adds an entry. Its path must be greater than the last one's; otherwise it is refused.
    pub(super) fn push(&mut self, entry: &Entry<'_>) -> bool {
        let last = self
            .tree
            .records
            .last()
            .map(|last| self.tree.slice(last.path));
        if last.is_some_and(|last| last >= entry.path) {
            return false;
        }
        self.hash(entry);
        let path = self.keep(entry.path);
        let kind = match entry.kind {
            EntryKind::Directory => RecordKind::Directory,
            EntryKind::File { size, hash } => RecordKind::File { size, hash },
            EntryKind::Symlink { target } => RecordKind::Symlink {
                target: self.keep(target),
            },
        };
        self.tree.records.push(Record {
            path,
            kind,
            mode: entry.mode,
            mtime_ns: entry.mtime_ns,
        });
        true
    }

    pub(super) fn finish(mut self, notices: Vec<String>) -> Tree {
        self.hasher.update(&self.pending);
        self.tree.digest = self.hasher.finalize().to_hex().to_string();
        self.tree.notices = notices;
        self.tree
    }

    fn keep(&mut self, bytes: &[u8]) -> Span {
        let start = self.tree.bytes.len();
        self.tree.bytes.extend_from_slice(bytes);
        Span {
            start,
            length: bytes.len(),
        }
    }

    /// The canonical form: kind, mode, path and target with their lengths, size and hash.
    fn hash(&mut self, entry: &Entry<'_>) {
        let out = &mut self.pending;
        let kind = match entry.kind {
            EntryKind::Directory => b'd',
            EntryKind::File { .. } => b'f',
            EntryKind::Symlink { .. } => b'l',
        };
        out.push(kind);
        out.extend_from_slice(&entry.mode.to_le_bytes());
        out.extend_from_slice(&(entry.path.len() as u64).to_le_bytes());
        out.extend_from_slice(entry.path);
        match entry.kind {
            EntryKind::Directory => {}
            EntryKind::File { size, hash } => {
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(&hash);
            }
            EntryKind::Symlink { target } => {
                out.extend_from_slice(&(target.len() as u64).to_le_bytes());
                out.extend_from_slice(target);
            }
        }
        if out.len() >= PENDING_BYTES {
            self.hasher.update(out);
            out.clear();
        }
    }
}

const PENDING_BYTES: usize = 64 * 1024;
