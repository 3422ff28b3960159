//! Reads the members of a tar archive.
//!
//! Headers are taken apart by the `tar` crate. What it does not give is done here: extended
//! headers by their lengths (values may hold line ends), bounded in size, sparse members of all
//! formats, and the difference between the end of the archive and the end of the input.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use tar::{EntryType, Header};

use super::ImportError;
use super::pax::Extensions;

pub(super) const BLOCK: usize = 512;

const CUT_OFF: &str = "the archive is cut off";

/// Names, targets and extended headers longer than this many bytes are refused.
const MAX_EXTENSION: u64 = 1 << 20;

/// One member, as its headers say.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) path: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_ns: i64,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Length of the file, holes included.
    pub(super) size: u64,
    /// Data regions (offset and length) of a sparse file.
    pub(super) regions: Option<Vec<(u64, u64)>>,
}

/// Reads members one after the other.
pub(super) struct ArchiveReader<'a> {
    pub(super) input: &'a mut dyn Read,
    /// Stands for the archive in errors.
    name: &'a Path,
    /// Bytes of the member at hand that were not read.
    pub(super) data_left: u64,
    /// Bytes that fill its last block.
    padding: u64,
    /// Whether a header was read: what comes is an archive.
    has_begun: bool,
    /// Whether the input ended without an end mark.
    pub(super) end_mark_missing: bool,
}

impl<'a> ArchiveReader<'a> {
    pub(super) fn new(input: &'a mut dyn Read, name: &'a Path) -> Self {
        Self {
            input,
            name,
            data_left: 0,
            padding: 0,
            has_begun: false,
            end_mark_missing: false,
        }
    }

    pub(super) fn bad(&self, reason: impl Into<String>) -> ImportError {
        ImportError::invalid(self.name, reason)
    }

    pub(super) fn failure(&self, error: io::Error) -> ImportError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.bad(CUT_OFF),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                match error.downcast::<ImportError>() {
                    Ok(error) => error,
                    Err(error) => self.bad(format!("the archive is damaged: {error}")),
                }
            }
            _ => ImportError::file("reading", self.name, error),
        }
    }

    /// Says that the input ended too early.
    pub(super) fn cut_off(&self) -> ImportError {
        self.bad(CUT_OFF)
    }

    /// Reads what follows the end mark. Uses, and overwrites, `buffer`.
    pub(super) fn drain(&mut self, buffer: &mut [u8]) -> Result<(), ImportError> {
        loop {
            match self.input.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
    }

    /// Reads data of the member at hand. `Ok(0)` is its end.
    pub(super) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, ImportError> {
        let most =
            usize::try_from(self.data_left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        loop {
            match self.input.read(&mut buffer[..most]) {
                Ok(0) => return Err(self.bad(CUT_OFF)),
                Ok(count) => {
                    self.data_left -= count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
    }

    /// The next member; `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Member>, ImportError> {
        let mut extensions = Extensions::default();
        let mut extended = false;
        loop {
            self.skip_rest()?;
            let Some(header) = self.read_header()? else {
                return match extended {
                    false => Ok(None),
                    true => Err(self.bad("an extended header stands for no member")),
                };
            };
            self.begin_data(&header)?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(self.read_name()?),
                EntryType::GNULongLink => extensions.target = Some(self.read_name()?),
                EntryType::XHeader => {
                    let records = self.read_extension()?;
                    extensions
                        .parse(&records)
                        .map_err(|reason| self.bad(reason))?;
                }
                // Applies to nothing that matters here: comments, mostly.
                EntryType::XGlobalHeader => continue,
                _ => return self.member(&header, extensions).map(Some),
            }
            extended = true;
        }
    }

    fn skip_rest(&mut self) -> Result<(), ImportError> {
        let mut buffer = [0; 16 * 1024];
        while self.read_data(&mut buffer)? > 0 {}
        self.skip_padding()
    }

    /// Some programs leave the last block as long as its data, and Docker takes that: an input that ends here ends as one
    /// does without an end mark.
    fn skip_padding(&mut self) -> Result<(), ImportError> {
        let mut buffer = [0; BLOCK];
        while self.padding > 0 {
            let most = usize::try_from(self.padding).map_or(BLOCK, |left| left.min(BLOCK));
            match self.input.read(&mut buffer[..most]) {
                Ok(0) => self.padding = 0,
                Ok(count) => self.padding -= count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
        Ok(())
    }

    fn begin_data(&mut self, header: &Header) -> Result<(), ImportError> {
        let size = self.number(header, 124..136, Header::entry_size)?;
        self.set_data(size);
        Ok(())
    }

    fn set_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// The next header block; `None` at the end mark, or where the input ends instead.
    fn read_header(&mut self) -> Result<Option<Header>, ImportError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => {
                    self.end_mark_missing = true;
                    return Ok(None);
                }
                Ok(0) => return Err(self.bad_header(&block[..filled], CUT_OFF)),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, &byte)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(byte)
                }
            })
            .sum();
        if header.cksum().ok() != Some(sum) {
            let reason = "the archive is damaged: a header has a wrong checksum";
            return Err(self.bad_header(header.as_bytes(), reason));
        }
        self.has_begun = true;
        Ok(Some(header))
    }

    /// Why a header, or its beginning, cannot be used: for `reason`, if there is any sign of an archive.
    fn bad_header(&self, block: &[u8], reason: &str) -> ImportError {
        let has_mark = block.get(257..262) == Some(b"ustar");
        self.bad(if self.has_begun || has_mark {
            reason
        } else {
            "it is not an archive of a known form (tar, tar.gz, tar.zst, tar.xz)"
        })
    }

    /// Reads all data of an extended header.
    fn read_extension(&mut self) -> Result<Vec<u8>, ImportError> {
        if self.data_left > MAX_EXTENSION {
            return Err(self.bad("an extended header is too long"));
        }
        let mut data = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.read_data(&mut buffer)? {
                0 => return Ok(data),
                count => data.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Reads a long name, which ends with NUL.
    fn read_name(&mut self) -> Result<Vec<u8>, ImportError> {
        let mut name = self.read_extension()?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn member(&mut self, header: &Header, ext: Extensions) -> Result<Member, ImportError> {
        let path = ext.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let mut kind = header.entry_type();
        if kind == EntryType::Regular && path.ends_with(b"/") {
            // As archivers did before there was a type for it.
            kind = EntryType::Directory;
        }
        match kind {
            // These have no data, whatever the header says: some archivers give a size.
            EntryType::Symlink
            | EntryType::Link
            | EntryType::Directory
            | EntryType::Char
            | EntryType::Block
            | EntryType::Fifo => self.set_data(0),
            _ => {
                if let Some(size) = ext.size {
                    self.set_data(size);
                }
            }
        }
        let mut size = self.data_left;
        let mut regions = ext.regions;
        if kind == EntryType::GNUSparse {
            let (real_size, found) = self.read_gnu_regions(header)?;
            (size, regions, kind) = (real_size, Some(found), EntryType::Regular);
        } else if ext.sparse_in_data {
            regions = Some(self.read_regions_in_data()?);
        }
        size = ext.real_size.filter(|_| regions.is_some()).unwrap_or(size);
        if let Some(regions) = &regions {
            self.check_regions(regions, size)?;
        }
        let target = ext.target.or_else(|| {
            let target = header.link_name_bytes()?;
            Some(target.into_owned())
        });
        let part = |value: io::Result<Option<u32>>| value.ok().flatten().unwrap_or(0);
        Ok(Member {
            path,
            target: target.unwrap_or_default(),
            kind,
            mode: self.number(header, 100..108, Header::mode)? & 0o7777,
            uid: self.owner(ext.uid, || self.number(header, 108..116, Header::uid))?,
            gid: self.owner(ext.gid, || self.number(header, 116..124, Header::gid))?,
            mtime_ns: match ext.mtime_ns {
                Some(mtime_ns) => mtime_ns,
                None => i64::try_from(self.number(header, 136..148, Header::mtime)?)
                    .unwrap_or(i64::MAX)
                    .saturating_mul(1_000_000_000),
            },
            device: (part(header.device_major()), part(header.device_minor())),
            xattrs: ext.xattrs,
            size,
            regions,
        })
    }

    /// A number in a header. A blank field is 0: some archivers leave out what they do not know.
    fn number<T: Default>(
        &self,
        header: &Header,
        field: Range<usize>,
        read: impl FnOnce(&Header) -> io::Result<T>,
    ) -> Result<T, ImportError> {
        if header.as_bytes()[field]
            .iter()
            .all(|byte| matches!(byte, 0 | b' '))
        {
            return Ok(T::default());
        }
        read(header).map_err(|error| self.failure(error))
    }

    fn owner(
        &self,
        extended: Option<u64>,
        header: impl FnOnce() -> Result<u64, ImportError>,
    ) -> Result<u32, ImportError> {
        let id = match extended {
            Some(id) => id,
            None => header()?,
        };
        // The largest number means "no change" to the system.
        u32::try_from(id)
            .ok()
            .filter(|&id| id != u32::MAX)
            .ok_or_else(|| self.bad(format!("the owner {id} is impossible")))
    }
}
