//! Hashes the files that the stat cache does not know.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::InjectError;
use super::walk::{Stamp, Walk};
use crate::beneath::{READ, as_path, open_beneath};
use crate::content::{BUFFER_BYTES, hash_file};

/// How often a file is read anew when it changes under the reader.
const ATTEMPTS: usize = 3;

/// A file that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashed {
    /// What it looked like before and after.
    pub(super) stamp: Stamp,
    pub(super) hash: [u8; 32],
}

/// Hashes the files with these numbers in `walk`, in this order. `None` for one that is gone.
pub(super) fn hash_files(
    root: &OwnedFd,
    host_dir: &Path,
    walk: &Walk,
    files: &[usize],
    threads: usize,
) -> Result<Vec<Option<Hashed>>, InjectError> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(&file) = files.get(index) else {
                return Ok(done);
            };
            let path = walk.path(&walk.found[file]);
            match hash_one(root, host_dir, path, &mut buffer) {
                Ok(hashed) => done.push((index, hashed)),
                Err(failure) => {
                    next.store(files.len(), Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
    };
    // A thread for a few files costs more than it brings.
    let threads = threads.min(files.len() / 16).max(1);
    let results: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let own = worker();
        let others = handles.into_iter().filter_map(|handle| handle.join().ok());
        std::iter::once(own).chain(others).collect()
    });
    let mut hashes = vec![None; files.len()];
    for result in results {
        for (index, hashed) in result? {
            hashes[index] = hashed;
        }
    }
    Ok(hashes)
}

fn hash_one(
    root: &OwnedFd,
    host_dir: &Path,
    path: &[u8],
    buffer: &mut [u8],
) -> Result<Option<Hashed>, InjectError> {
    for _ in 0..ATTEMPTS {
        match try_hash(root, path, buffer) {
            Ok(Attempt::Done(hashed)) => return Ok(Some(hashed)),
            Ok(Attempt::Gone) => return Ok(None),
            Ok(Attempt::Changed) => {}
            Err(errno) => {
                let path = host_dir.join(as_path(path));
                return Err(InjectError::file("reading", &path, errno));
            }
        }
    }
    Err(InjectError::ChangedWhileReading {
        path: as_path(path).to_owned(),
    })
}

enum Attempt {
    Done(Hashed),
    Changed,
    Gone,
}

fn try_hash(root: &OwnedFd, path: &[u8], buffer: &mut [u8]) -> Result<Attempt, Errno> {
    let file = match open_beneath(root, path, READ) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(Attempt::Gone),
        Err(errno) => return Err(errno),
    };
    let before = rustix::fs::fstat(&file)?;
    if !FileType::from_raw_mode(before.st_mode).is_file() {
        return Ok(Attempt::Gone);
    }
    let stamp = Stamp::of(&before);
    let content = hash_file(&file, stamp.size, buffer)?;
    let after = Stamp::of(&rustix::fs::fstat(&file)?);
    if after != stamp || content.size != stamp.size {
        return Ok(Attempt::Changed);
    }
    Ok(Attempt::Done(Hashed {
        stamp,
        hash: content.hash,
    }))
}
