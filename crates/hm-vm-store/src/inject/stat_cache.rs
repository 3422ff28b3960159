//! Remembers the hashes of unchanged files.
//!
//! ```text
//! "HMVMSTAT" version:u32 entries:u64 directory-length:u32 directory
//! per file: path-length:u32 device:u64 inode:u64 size:u64 mtime:i64 ctime:i64 mode:u32 hash:32 path
//! BLAKE3 hash of all that: 32 bytes
//! ```
//!
//! Numbers are little-endian, files sorted by path. A reader accepts its own version alone; any
//! other is replaced.
//!
//! # Files that change within one tick of the clock
//!
//! A file that is written twice within one tick keeps its times. Like git's index, the cache does
//! not trust a file whose times are not older than the scan that hashed it, by a margin for the
//! tick: such a file is not entered, and the next scan hashes it again.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::walk::Stamp;
use crate::beneath::open_root;

/// Where the stat caches of scanned directories are kept: one file for each host directory, and for
/// each set of patterns that it is scanned with. What one of them does not know is looked for in
/// its siblings, so that no file is read once for each set.
///
/// A cache is only an accelerator. One that is damaged, foreign or gone is made anew, and a
/// failure to write it is not an error.
#[derive(Clone, Debug)]
pub struct StatCache {
    directory: Option<PathBuf>,
}

impl StatCache {
    /// Keeps the caches in `directory`, which is created when needed.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: Some(directory.into()),
        }
    }

    /// Keeps none: each scan reads every file.
    pub fn disabled() -> Self {
        Self { directory: None }
    }

    /// The cache of `host_dir`, a canonical path, scanned with the patterns that `key` stands for.
    pub(super) fn of<'a>(&'a self, host_dir: &'a Path, key: Option<&str>) -> SourceCache<'a> {
        let family = family_of(host_dir);
        SourceCache {
            directory: self.directory.as_deref(),
            host_dir,
            name: match key {
                Some(key) => format!("{family}-{key}.stat"),
                None => format!("{family}.stat"),
            },
            family,
        }
    }
}

/// The cache of one host directory, scanned with certain patterns.
#[derive(Debug)]
pub(super) struct SourceCache<'a> {
    directory: Option<&'a Path>,
    host_dir: &'a Path,
    name: String,
    /// What the names of all caches of the host directory begin with.
    family: String,
}

impl SourceCache<'_> {
    /// What is remembered.
    pub(super) fn load(&self) -> CachedFiles {
        self.directory
            .map(|directory| self.read(&directory.join(&self.name)))
            .unwrap_or_default()
    }

    fn read(&self, path: &Path) -> CachedFiles {
        std::fs::read(path)
            .ok()
            .and_then(|bytes| CachedFiles::parse(bytes, self.host_dir))
            .unwrap_or_default()
    }

    /// What is remembered of the same directory with other patterns, the newest first.
    pub(super) fn siblings(&self) -> impl Iterator<Item = CachedFiles> {
        self.family(|name| name != self.name)
            .into_iter()
            .map(|path| self.read(&path))
    }

    /// Remembers `files`. Does nothing when another process is doing the same.
    pub(super) fn store(&self, files: CacheWriter) {
        let Some(directory) = self.directory else {
            return;
        };
        let is_new = !directory.join(&self.name).exists();
        if let Err(errno) = write_atomically(directory, &self.name, &files.finish()) {
            tracing::debug!(?directory, %errno, "the stat cache was not written");
        }
        if is_new {
            for old in self.family(|_| true).into_iter().skip(MAX_FAMILY) {
                let _ = std::fs::remove_file(old);
            }
        }
    }

    /// Caches of the host directory, the newest first.
    fn family(&self, which: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let entries = self.directory.and_then(|path| std::fs::read_dir(path).ok());
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(name) = name.to_str()
                && name.starts_with(&self.family)
                && name.ends_with(".stat")
                && which(name)
                && let Ok(modified) = entry.metadata().and_then(|found| found.modified())
            {
                found.push((modified, entry.path()));
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, path)| path).collect()
    }
}

/// More caches of one host directory than this are not kept.
const MAX_FAMILY: usize = 16;

const MAGIC: &[u8; 8] = b"HMVMSTAT";
const VERSION: u32 = 1;
const HASH_BYTES: usize = 32;

/// Bytes of an entry before its path.
const FIXED_BYTES: usize = 4 + 5 * 8 + 4 + HASH_BYTES;

fn family_of(host_dir: &Path) -> String {
    blake3::hash(host_dir.as_os_str().as_encoded_bytes()).to_hex()[..32].to_owned()
}

/// Writes under a fixed temporary name, so that a process that dies leaves one file at most, which
/// the next one takes over. The lock on it keeps writers apart.
fn write_atomically(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Errno> {
    std::fs::create_dir_all(directory).map_err(|_| Errno::ACCESS)?;
    let directory = open_root(directory).map_err(|_| Errno::ACCESS)?;
    let temporary = format!("{name}.new");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(&directory, &temporary, flags, Mode::from(0o600))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(()),
        result => result?,
    }
    // The one who had the lock before may have given the file its real name.
    let named = rustix::fs::statat(&directory, &temporary, AtFlags::SYMLINK_NOFOLLOW)?;
    if named.st_ino != rustix::fs::fstat(&file)?.st_ino {
        return Ok(());
    }
    rustix::fs::ftruncate(&file, 0)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = rustix::io::write(&file, rest)?;
        rest = &rest[count..];
    }
    rustix::fs::renameat(&directory, &temporary, &directory, name)
}

/// One remembered file.
#[derive(Clone, Copy, Debug)]
pub(super) struct CachedFile<'a> {
    pub(super) path: &'a [u8],
    pub(super) stamp: Stamp,
    pub(super) hash: [u8; HASH_BYTES],
}

/// What is remembered of one host directory.
#[derive(Debug, Default)]
pub(super) struct CachedFiles {
    bytes: Vec<u8>,
    start: usize,
    count: u64,
}

impl CachedFiles {
    /// Checks the whole file; `None` when it cannot be used.
    fn parse(bytes: Vec<u8>, host_dir: &Path) -> Option<Self> {
        let end = bytes.len().checked_sub(HASH_BYTES)?;
        let (content, checksum) = bytes.split_at(end);
        if blake3::hash(content).as_bytes() != checksum {
            return None;
        }
        let rest = content.strip_prefix(MAGIC)?;
        let (version, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let directory = rest.get(..u32::from_le_bytes(*length) as usize)?;
        if u32::from_le_bytes(*version) != VERSION
            || directory != host_dir.as_os_str().as_encoded_bytes()
        {
            return None;
        }
        Some(Self {
            start: MAGIC.len() + 16 + directory.len(),
            count: u64::from_le_bytes(*count),
            bytes,
        })
    }

    /// Number of remembered files.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// All files, sorted by path.
    pub(super) fn iter(&self) -> impl Iterator<Item = CachedFile<'_>> {
        let end = self.bytes.len().saturating_sub(HASH_BYTES);
        let mut rest = self.bytes.get(self.start..end).unwrap_or_default();
        std::iter::from_fn(move || {
            let (file, after) = parse_file(rest)?;
            rest = after;
            Some(file)
        })
    }
}

fn parse_file(bytes: &[u8]) -> Option<(CachedFile<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (device, rest) = rest.split_first_chunk()?;
    let (inode, rest) = rest.split_first_chunk()?;
    let (size, rest) = rest.split_first_chunk()?;
    let (mtime_ns, rest) = rest.split_first_chunk()?;
    let (ctime_ns, rest) = rest.split_first_chunk()?;
    let (mode, rest) = rest.split_first_chunk()?;
    let (hash, rest) = rest.split_first_chunk()?;
    let (path, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let stamp = Stamp {
        device: u64::from_le_bytes(*device),
        inode: u64::from_le_bytes(*inode),
        size: u64::from_le_bytes(*size),
        mtime_ns: i64::from_le_bytes(*mtime_ns),
        ctime_ns: i64::from_le_bytes(*ctime_ns),
        mode: u32::from_le_bytes(*mode),
    };
    Some((
        CachedFile {
            path,
            stamp,
            hash: *hash,
        },
        rest,
    ))
}

/// Gathers what is to be remembered.
#[derive(Debug)]
pub(super) struct CacheWriter {
    bytes: Vec<u8>,
    count_at: usize,
    count: u64,
    /// Times from here on are not trusted, in nanoseconds since 1970.
    horizon_ns: i64,
}

/// Longer than a tick of the kernel's clock.
const TICK: Duration = Duration::from_millis(20);

/// Longer than a tick of a file system that keeps whole seconds, or every other one.
const COARSE_TICK_NS: i64 = 3_000_000_000;

impl CacheWriter {
    /// For a scan that began at `scan_start`.
    pub(super) fn new(host_dir: &Path, scan_start: SystemTime, files: usize) -> Self {
        let directory = host_dir.as_os_str().as_encoded_bytes();
        let mut bytes = Vec::with_capacity(files * (FIXED_BYTES + 40) + directory.len() + 64);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let count_at = bytes.len();
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        bytes.extend_from_slice(&(directory.len() as u32).to_le_bytes());
        bytes.extend_from_slice(directory);
        let horizon = scan_start
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .saturating_sub(TICK);
        Self {
            bytes,
            count_at,
            count: 0,
            horizon_ns: i64::try_from(horizon.as_nanos()).unwrap_or(0),
        }
    }

    /// Enters a file, unless its times are too young to be trusted. Files come sorted by path.
    pub(super) fn push(&mut self, file: &CachedFile<'_>) {
        let stamp = &file.stamp;
        // Only the kernel sets this time: whole seconds in it are the file system's.
        let coarse = stamp.ctime_ns % 1_000_000_000 == 0;
        let margin = if coarse { COARSE_TICK_NS } else { 0 };
        if stamp.mtime_ns.max(stamp.ctime_ns).saturating_add(margin) >= self.horizon_ns {
            return;
        }
        let out = &mut self.bytes;
        out.extend_from_slice(&(file.path.len() as u32).to_le_bytes());
        out.extend_from_slice(&stamp.device.to_le_bytes());
        out.extend_from_slice(&stamp.inode.to_le_bytes());
        out.extend_from_slice(&stamp.size.to_le_bytes());
        out.extend_from_slice(&stamp.mtime_ns.to_le_bytes());
        out.extend_from_slice(&stamp.ctime_ns.to_le_bytes());
        out.extend_from_slice(&stamp.mode.to_le_bytes());
        out.extend_from_slice(&file.hash);
        out.extend_from_slice(file.path);
        self.count += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes[self.count_at..self.count_at + 8].copy_from_slice(&self.count.to_le_bytes());
        let checksum = blake3::hash(&self.bytes);
        self.bytes.extend_from_slice(checksum.as_bytes());
        self.bytes
    }
}
