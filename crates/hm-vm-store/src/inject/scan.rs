//! From a host directory to a tree: walk, sort, look up or hash, digest.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::SystemTime;

use hm_vm_core::InjectSource;

use super::filter::{Filter, drop_useless_leads};
use super::hashing::{Hashed, hash_files};
use super::stat_cache::{CacheWriter, CachedFile, CachedFiles};
use super::tree::{Entry, EntryKind, TreeBuilder};
use super::walk::{FoundKind, Walk, walk};
use super::{InjectError, StatCache, Tree};
use crate::beneath::open_root;

/// More threads than this bring nothing.
const MAX_THREADS: usize = 8;

/// Number of threads for a walk or a copy.
pub(super) fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(MAX_THREADS))
}

/// Scans `host_dir` (which may be a symbolic link to a directory). See the [module](super) for
/// what is left out.
///
/// # Errors
///
/// [`InjectError::InvalidInput`] when it is not a directory,
/// [`InjectError::ChangedWhileReading`] when a file changes during the scan again and again, or a
/// failure to read. An entry that vanishes during the scan is left out.
pub fn scan(host_dir: &Path, cache: &StatCache) -> Result<Tree, InjectError> {
    scan_source(&InjectSource::directory(host_dir), cache)
}

/// As [`scan`], for the part of a directory that a source names.
///
/// # Errors
///
/// As [`scan`]; [`InjectError::BadPattern`] for a pattern that makes no sense.
pub fn scan_source(source: &InjectSource, cache: &StatCache) -> Result<Tree, InjectError> {
    let filter = Filter::new(source)?;
    let scan_start = SystemTime::now();
    let (root, host_dir) = open_host_directory(&source.directory)?;
    let cache = cache.of(&host_dir, filter.key());
    let threads = thread_count();
    let (walk, cached) = std::thread::scope(|scope| {
        let cached = scope.spawn(|| cache.load());
        let walk = walk(&root, &host_dir, &filter, threads);
        (walk, cached.join().unwrap_or_default())
    });
    let walk = walk?;
    let mut order: Vec<usize> = (0..walk.found.len()).collect();
    order.sort_unstable_by(|&a, &b| walk.path(&walk.found[a]).cmp(walk.path(&walk.found[b])));
    drop_useless_leads(&walk, &mut order);

    let mut known = vec![None; order.len()];
    let mut missing = look_up(&walk, &order, &cached, &mut known);
    let used = known.iter().flatten().count() as u64;
    let was_missing = missing;
    if missing > 0 {
        for sibling in cache.siblings() {
            missing = look_up(&walk, &order, &sibling, &mut known);
            if missing == 0 {
                break;
            }
        }
    }
    let unknown: Vec<usize> = order
        .iter()
        .zip(&known)
        .filter(|&(&index, hash)| {
            hash.is_none() && matches!(walk.found[index].kind, FoundKind::File)
        })
        .map(|(&index, _)| index)
        .collect();
    let hashed = hash_files(&root, &host_dir, &walk, &unknown, threads)?;

    let mut writer = (was_missing > 0 || used != cached.len())
        .then(|| CacheWriter::new(&host_dir, scan_start, order.len()));
    let tree = build(walk, &order, &known, &hashed, writer.as_mut());
    if let Some(writer) = writer {
        cache.store(writer);
    }
    Ok(tree)
}

/// Opens the directory, and tells its real path.
fn open_host_directory(path: &Path) -> Result<(OwnedFd, std::path::PathBuf), InjectError> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let invalid = |error: std::io::Error| match error.kind() {
        NotFound => InjectError::invalid(path, "there is no such directory"),
        NotADirectory => InjectError::invalid(path, "it is not a directory"),
        _ => InjectError::file("opening", path, error),
    };
    let real = path.canonicalize().map_err(invalid)?;
    let root = open_root(&real).map_err(|failure| invalid(failure.source))?;
    Ok((root, real))
}

/// Adds the remembered hashes of unchanged files, in `order`. Returns how many files there are that
/// are not known.
fn look_up(
    walk: &Walk,
    order: &[usize],
    cached: &CachedFiles,
    known: &mut [Option<[u8; 32]>],
) -> usize {
    let mut files = cached.iter().peekable();
    let mut unknown = 0;
    for (&index, known) in order.iter().zip(known) {
        let found = &walk.found[index];
        if known.is_some() || !matches!(found.kind, FoundKind::File) {
            continue;
        }
        let path = walk.path(found);
        while files.next_if(|file| file.path < path).is_some() {}
        *known = files
            .next_if(|file| file.path == path)
            .filter(|file| file.stamp == found.stamp)
            .map(|file| file.hash);
        unknown += usize::from(known.is_none());
    }
    unknown
}

/// Puts the tree together, and enters all files into the new cache.
fn build(
    mut walk: Walk,
    order: &[usize],
    known: &[Option<[u8; 32]>],
    hashed: &[Option<Hashed>],
    mut writer: Option<&mut CacheWriter>,
) -> Tree {
    let mut builder = TreeBuilder::new(order.len(), walk.bytes.len());
    let mut hashed = hashed.iter();
    for (&index, known) in order.iter().zip(known) {
        let found = &walk.found[index];
        let path = walk.path(found);
        let mut stamp = found.stamp;
        let kind = match found.kind {
            FoundKind::Directory { .. } => EntryKind::Directory,
            FoundKind::Symlink { target_length } => EntryKind::Symlink {
                target: walk.target(found, target_length),
            },
            FoundKind::File => {
                let fresh = match known {
                    Some(hash) => Some(Hashed { stamp, hash: *hash }),
                    None => hashed.next().copied().flatten(),
                };
                // One that is gone meanwhile is left out.
                let Some(file) = fresh else { continue };
                stamp = file.stamp;
                let hash = file.hash;
                if let Some(writer) = writer.as_deref_mut() {
                    writer.push(&CachedFile { path, stamp, hash });
                }
                EntryKind::File {
                    size: stamp.size,
                    hash,
                }
            }
        };
        builder.push(&Entry {
            path,
            kind,
            mode: stamp.mode,
            mtime_ns: stamp.mtime_ns,
        });
    }
    walk.notices.sort_unstable();
    builder.finish(walk.notices)
}
