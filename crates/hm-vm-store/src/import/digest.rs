//! The digest of an image.
//!
//! BLAKE3 over the entries of the tree in a fixed order: a directory, then what is in it but
//! directories sorted by name, then its directories sorted by name. Of each entry: path, kind,
//! mode, owner and group as they are in the tree, the kept extended attributes, and length and
//! hash of a file, target of a link, number of a device. Not: times, inode numbers, which names
//! are hard links of one file, order in an archive. So a directory and an archive of it give the
//! same digest where the same can be kept of both.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::ImportError;
use super::xattrs;
use crate::beneath::{DIRECTORY, READ, as_path, join, open_beneath, read_names};
use crate::content::{BUFFER_BYTES, hash_file};

/// What a tree amounts to.
#[derive(Debug)]
pub(super) struct Sum {
    pub(super) digest: String,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Sums up the tree below `root`. `hashes` are those known of files, by inode number.
pub(super) fn digest(
    root: BorrowedFd<'_>,
    hashes: &HashMap<u64, [u8; 32]>,
) -> Result<Sum, ImportError> {
    let mut walk = Walk {
        root,
        hashes,
        hasher: blake3::Hasher::new(),
        record: Vec::new(),
        linked: HashSet::new(),
        entries: 0,
        bytes: 0,
        left: vec![Vec::new()],
        buffer: Vec::new(),
    };
    walk.hasher.update(b"hm-vm image tree 1\n");
    while let Some(path) = walk.left.pop() {
        walk.directory(&path)
            .map_err(|errno| ImportError::file("reading the image's", as_path(&path), errno))?;
    }
    Ok(Sum {
        digest: walk.hasher.finalize().to_hex().to_string(),
        entries: walk.entries.saturating_sub(1),
        bytes: walk.bytes,
    })
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    hashes: &'a HashMap<u64, [u8; 32]>,
    hasher: blake3::Hasher,
    record: Vec<u8>,
    /// Files of several names that are counted already.
    linked: HashSet<u64>,
    entries: u64,
    bytes: u64,
    left: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &[u8]) -> Result<(), Errno> {
        let directory = open_beneath(self.root, path, DIRECTORY)?;
        self.begin(path, &rustix::fs::fstat(&directory)?);
        self.put_xattrs(&directory)?;
        self.end();
        let mut names = Vec::new();
        read_names(&directory, &mut self.buffer, &mut |name, _| {
            names.push(name.to_owned());
        })?;
        names.sort_unstable();
        let first = self.left.len();
        for name in names {
            let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let path = join(path, name.to_bytes());
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.left.push(path);
            } else {
                self.entry(&directory, name.to_bytes(), &path, &stat)?;
            }
        }
        // The last one is taken first.
        self.left[first..].reverse();
        Ok(())
    }

    fn entry(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), Errno> {
        self.begin(path, stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = open_beneath(directory, name, READ)?;
                self.put_xattrs(&file)?;
                self.put_content(&file, stat)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
                self.put(target.to_bytes());
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.put(&stat.st_rdev.to_le_bytes());
            }
            _ => {}
        }
        self.end();
        Ok(())
    }

    fn begin(&mut self, path: &[u8], stat: &Stat) {
        self.entries += 1;
        self.record.clear();
        self.put(path);
        for number in [stat.st_mode, stat.st_uid, stat.st_gid] {
            self.record.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn end(&mut self) {
        self.hasher
            .update(&(self.record.len() as u64).to_le_bytes());
        self.hasher.update(&self.record);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.record
            .extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.record.extend_from_slice(bytes);
    }

    fn put_xattrs(&mut self, file: impl AsFd) -> Result<(), Errno> {
        let xattrs = xattrs::read(file)?;
        self.record
            .extend_from_slice(&(xattrs.len() as u64).to_le_bytes());
        for (name, value) in &xattrs {
            self.put(name);
            self.put(value);
        }
        Ok(())
    }

    fn put_content(&mut self, file: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if stat.st_nlink == 1 || self.linked.insert(stat.st_ino) {
            self.bytes += size;
        }
        let hash = match self.hashes.get(&stat.st_ino) {
            Some(hash) => *hash,
            None => hash_file(file, size, &mut vec![0; BUFFER_BYTES])?.hash,
        };
        self.record.extend_from_slice(&size.to_le_bytes());
        self.record.extend_from_slice(&hash);
        Ok(())
    }
}
