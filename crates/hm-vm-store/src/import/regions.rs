//! Which parts of a sparse member have data.

use std::io;

use tar::Header;

use super::ImportError;
use super::archive::{ArchiveReader, BLOCK};

/// More data regions of one sparse member than this are refused.
const MAX_REGIONS: u64 = 1 << 20;

impl ArchiveReader<'_> {
    /// Regions of a member in GNU's old sparse format: in the header and in blocks behind it.
    pub(super) fn read_gnu_regions(
        &mut self,
        header: &Header,
    ) -> Result<(u64, Vec<(u64, u64)>), ImportError> {
        let Some(gnu) = header.as_gnu() else {
            return Err(self.bad("a sparse member has a header of another format"));
        };
        let size = gnu.real_size().map_err(|error| self.failure(error))?;
        let mut regions = Vec::new();
        let mut add = |sparse: &[tar::GnuSparseHeader]| -> io::Result<()> {
            for region in sparse.iter().filter(|region| !region.is_empty()) {
                regions.push((region.offset()?, region.length()?));
            }
            Ok(())
        };
        add(&gnu.sparse).map_err(|error| self.failure(error))?;
        let mut more = gnu.is_extended();
        let mut blocks = 0;
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.input
                .read_exact(block.as_mut_bytes())
                .map_err(|error| self.failure(error))?;
            add(block.sparse()).map_err(|error| self.failure(error))?;
            more = block.is_extended();
            blocks += 1;
            if blocks > MAX_REGIONS / 21 {
                return Err(self.bad("a sparse member has too many regions"));
            }
        }
        Ok((size, regions))
    }

    /// Regions in the PAX format 1.0: decimal numbers, one a line, in the first blocks of data.
    pub(super) fn read_regions_in_data(&mut self) -> Result<Vec<(u64, u64)>, ImportError> {
        let mut taken = 0_u64;
        let count = self.read_decimal(&mut taken)?;
        if count > MAX_REGIONS {
            return Err(self.bad("a sparse member has too many regions"));
        }
        let mut regions = Vec::new();
        for _ in 0..count {
            let offset = self.read_decimal(&mut taken)?;
            regions.push((offset, self.read_decimal(&mut taken)?));
        }
        let mut rest = [0; BLOCK];
        let fill = usize::try_from(taken.wrapping_neg() % BLOCK as u64).unwrap_or(0);
        let mut filled = 0;
        while filled < fill {
            match self.read_data(&mut rest[filled..fill])? {
                0 => return Err(self.bad("a sparse member is cut off")),
                count => filled += count,
            }
        }
        Ok(regions)
    }

    fn read_decimal(&mut self, taken: &mut u64) -> Result<u64, ImportError> {
        let mut value = 0_u64;
        let mut byte = [0];
        loop {
            if self.read_data(&mut byte)? == 0 {
                return Err(self.bad("a sparse member is cut off"));
            }
            *taken += 1;
            value = match byte[0] {
                b'\n' => return Ok(value),
                digit @ b'0'..=b'9' => value
                    .checked_mul(10)
                    .and_then(|value| value.checked_add(u64::from(digit - b'0')))
                    .ok_or_else(|| self.bad("a sparse member has an impossible region"))?,
                _ => return Err(self.bad("a sparse member has an impossible region")),
            };
        }
    }

    /// Regions must be in order, within the file, and have exactly the data that there is.
    pub(super) fn check_regions(
        &self,
        regions: &[(u64, u64)],
        size: u64,
    ) -> Result<(), ImportError> {
        let mut end = 0;
        let mut data = 0_u64;
        for &(offset, length) in regions {
            let next = offset.checked_add(length).filter(|&next| next <= size);
            match next {
                Some(next) if offset >= end => end = next,
                _ => return Err(self.bad("a sparse member has an impossible region")),
            }
            data = data.saturating_add(length);
        }
        if data != self.data_left {
            return Err(self.bad("a sparse member has other data than its regions say"));
        }
        Ok(())
    }
}
