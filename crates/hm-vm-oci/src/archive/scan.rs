//! What lies where in an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tar::{EntryType, Header};

use super::headers::{Extensions, has_no_content, is_extension, normalize, until_nul};
use crate::OciError;
use crate::layout::Place;

/// An image of 4096 layers has 16,000 members in the oldest form.
const MAX_MEMBERS: usize = 100_000;
/// Bytes of all names together.
const MAX_NAMES: usize = 32 << 20;
/// Bytes of an extended header.
const MAX_EXTENSION: u64 = 1 << 20;
/// Links that lead to links.
const MAX_HOPS: usize = 16;

const BLOCK: u64 = 512;

/// The members of an archive that lies in a file: where each one is.
#[derive(Debug)]
pub struct Members {
    file: Arc<File>,
    path: PathBuf,
    members: HashMap<String, Member>,
    is_cut_off: bool,
}

#[derive(Debug)]
enum Member {
    /// Its bytes.
    File(Region),
    /// Another name.
    Link(String),
}

/// Bytes of the file.
#[derive(Clone, Copy, Debug)]
struct Region {
    offset: u64,
    size: u64,
}

impl Members {
    /// Reads the headers of an archive, which is called `path` in messages. What is neither file nor link is passed over,
    /// and so is what has a name that leads out of the archive.
    ///
    /// Memory and time are bounded: after 100,000 members it stops ([`is_cut_off`](Self::is_cut_off)).
    ///
    /// # Errors
    ///
    /// [`OciError::Invalid`] when it is no tar archive or damaged; [`OciError::Io`].
    pub fn scan(file: File, path: &Path) -> Result<Self, OciError> {
        let failed = |error| OciError::of_io("reading", path.display(), error);
        let end = file.metadata().map_err(failed)?.len();
        let mut scan = Scan {
            file: &file,
            path,
            end,
            next: Extensions::default(),
            members: HashMap::new(),
            names: 0,
        };
        let is_cut_off = !scan.run()?;
        let members = scan.members;
        Ok(Self {
            file: Arc::new(file),
            path: path.to_owned(),
            members,
            is_cut_off,
        })
    }

    /// Whether there are more members than an archive of images may have: not all of them are known.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// Whether there is a file of this name, perhaps by way of links.
    pub fn contains(&self, name: &str) -> bool {
        self.region(name).is_some()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Opens a member, and tells its size.
    ///
    /// # Errors
    ///
    /// [`OciError::NotFound`].
    pub fn member(&self, name: &str) -> Result<(MemberReader, u64), OciError> {
        let region = self.region(name).ok_or_else(|| OciError::NotFound {
            what: name.to_owned(),
            place: self.path.display().to_string(),
        })?;
        let reader = MemberReader {
            file: Arc::clone(&self.file),
            offset: region.offset,
            left: region.size,
        };
        Ok((reader, region.size))
    }

    /// Reads a member that is small.
    ///
    /// # Errors
    ///
    /// [`OciError::NotFound`]; [`OciError::Invalid`] when it has more than `limit` bytes; [`OciError::Io`].
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, OciError> {
        let (mut reader, size) = self.member(name)?;
        let what = || format!("{name} of {}", self.path.display());
        if size > limit {
            let reason = format!("it has {size} bytes, more than {limit}");
            return Err(OciError::invalid(what(), reason));
        }
        let mut bytes = Vec::new();
        (reader.read_to_end(&mut bytes))
            .map_err(|error| OciError::of_io("reading", what(), error))?;
        if (bytes.len() as u64) < size {
            return Err(OciError::invalid(what(), "the archive ends within it"));
        }
        Ok(bytes)
    }

    /// Name of the archive.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn region(&self, name: &str) -> Option<Region> {
        let mut name = name;
        for _ in 0..MAX_HOPS {
            match self.members.get(name)? {
                Member::File(region) => return Some(*region),
                Member::Link(target) => name = target,
            }
        }
        None
    }
}

impl Place for Members {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn open(&self, path: &str) -> Result<(Box<dyn Read + Send>, u64), OciError> {
        let (reader, size) = self.member(path)?;
        Ok((Box::new(reader), size))
    }
}

/// Reads a member at its place, beside others who read.
#[derive(Debug)]
pub struct MemberReader {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for MemberReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

struct Scan<'a> {
    file: &'a File,
    path: &'a Path,
    /// Length of the file.
    end: u64,
    next: Extensions,
    members: HashMap<String, Member>,
    /// Bytes of all names.
    names: usize,
}

impl Scan<'_> {
    /// Goes over all headers; `false` when there are too many.
    fn run(&mut self) -> Result<bool, OciError> {
        let mut offset = 0;
        let mut headers = 0;
        loop {
            let mut header = Header::new_old();
            if offset >= self.end && headers > 0 {
                return Ok(true);
            }
            self.read_at(header.as_mut_bytes(), offset)?;
            if header.as_bytes().iter().all(|&byte| byte == 0) {
                return match headers {
                    0 => Err(self.bad("it is no tar archive")),
                    _ => Ok(true),
                };
            }
            self.check(&header, headers)?;
            headers += 1;
            if headers > 4 * MAX_MEMBERS
                || self.members.len() > MAX_MEMBERS
                || self.names > MAX_NAMES
            {
                return Ok(false);
            }
            let size = match self.next.size {
                _ if has_no_content(header.entry_type()) => 0,
                Some(size) if !is_extension(header.entry_type()) => size,
                _ => header
                    .entry_size()
                    .map_err(|_| self.bad("a header of it is damaged"))?,
            };
            let begin = offset + BLOCK + self.sparse_blocks(&header, offset)?;
            offset = begin
                .checked_add(size)
                .and_then(|end| end.checked_next_multiple_of(BLOCK))
                .filter(|_| begin + size <= self.end)
                .ok_or_else(|| self.bad("it is cut off"))?;
            self.take(
                &header,
                Region {
                    offset: begin,
                    size,
                },
            )?;
        }
    }

    fn bad(&self, reason: &str) -> OciError {
        OciError::invalid(self.path.display().to_string(), reason)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), OciError> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.bad("it is cut off, or no tar archive"),
                _ => OciError::of_io("reading", self.path.display(), error),
            })
    }

    fn check(&self, header: &Header, headers: usize) -> Result<(), OciError> {
        let bytes = header.as_bytes();
        let field = 148..156;
        let sum: u32 = bytes.iter().enumerate().fold(0, |sum, (at, &byte)| {
            sum + u32::from(if field.contains(&at) { b' ' } else { byte })
        });
        match header.cksum() {
            Ok(told) if told == sum => Ok(()),
            _ if headers == 0 => Err(self.bad("it is no tar archive")),
            _ => Err(self.bad("a header of it is damaged")),
        }
    }

    /// Bytes of the headers that GNU's sparse files have besides their own.
    fn sparse_blocks(&self, header: &Header, offset: u64) -> Result<u64, OciError> {
        let mut bytes = 0;
        let mut more = header.entry_type() == EntryType::GNUSparse
            && header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
        while more {
            bytes += BLOCK;
            if bytes > MAX_EXTENSION {
                return Err(self.bad("a header of it is too long"));
            }
            let mut block = tar::GnuExtSparseHeader::new();
            self.read_at(block.as_mut_bytes(), offset + bytes)?;
            more = block.is_extended();
        }
        Ok(bytes)
    }

    /// Notes a member, or what is said of the next one.
    fn take(&mut self, header: &Header, region: Region) -> Result<(), OciError> {
        let kind = header.entry_type();
        if is_extension(kind) {
            return self.extend(kind, region);
        }
        let next = std::mem::take(&mut self.next);
        let name = next
            .name
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let Some(name) = normalize("", &name) else {
            return Ok(());
        };
        let target = || {
            let header = header.link_name_bytes().map(std::borrow::Cow::into_owned);
            next.target.or(header).unwrap_or_default()
        };
        let member = match kind {
            EntryType::Regular | EntryType::Continuous if !next.is_sparse => Member::File(region),
            EntryType::Symlink => match normalize(&name, &target()) {
                Some(target) => Member::Link(target),
                None => return Ok(()),
            },
            EntryType::Link => match normalize("", &target()) {
                // A file that is its own name: what an earlier member of it was.
                Some(target) if target == name => return Ok(()),
                Some(target) => Member::Link(target),
                None => return Ok(()),
            },
            // A directory or anything else of a name takes it from an earlier file, as it does for who unpacks.
            _ => {
                self.members.remove(&name);
                return Ok(());
            }
        };
        self.names += name.len();
        self.members.insert(name, member);
        Ok(())
    }

    fn extend(&mut self, kind: EntryType, region: Region) -> Result<(), OciError> {
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        if region.size > MAX_EXTENSION {
            return Err(self.bad("a header of it is too long"));
        }
        let mut bytes = vec![0; usize::try_from(region.size).unwrap_or(0)];
        self.read_at(&mut bytes, region.offset)?;
        match kind {
            EntryType::GNULongName => self.next.name = Some(until_nul(bytes)),
            EntryType::GNULongLink => self.next.target = Some(until_nul(bytes)),
            _ => self
                .next
                .read(&bytes)
                .ok_or_else(|| self.bad("a header of it is damaged"))?,
        }
        Ok(())
    }
}
