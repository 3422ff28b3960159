//! Extended headers (POSIX pax), taken apart by the lengths of their records.

/// What the extended headers before a member say of it.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime_ns: Option<i64>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Length of a sparse file.
    pub(super) real_size: Option<u64>,
    /// Regions of a sparse file in format 0.0 or 0.1.
    pub(super) regions: Option<Vec<(u64, u64)>>,
    /// The regions are at the beginning of the data (format 1.0).
    pub(super) sparse_in_data: bool,
    /// An offset of format 0.0 whose length has not come yet.
    pending_offset: Option<u64>,
    /// The real name of a sparse file: the plain one is made up.
    has_sparse_name: bool,
}

impl Extensions {
    /// Reads the records of one header: `length key=value\n`, the length counting all of it.
    pub(super) fn parse(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "an extended header is damaged";
        while !records.is_empty() {
            if records.iter().all(|&byte| byte == 0) {
                return Ok(());
            }
            let space = records.iter().position(|&byte| byte == b' ').ok_or(BAD)?;
            let length = decimal(&records[..space]).ok_or(BAD)?;
            let length = usize::try_from(length).map_err(|_| BAD)?;
            if length <= space + 1 || length > records.len() {
                return Err(BAD);
            }
            let (record, rest) = records.split_at(length);
            records = rest;
            let record = record[space + 1..].strip_suffix(b"\n").ok_or(BAD)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(BAD)?;
            self.set(&record[..equals], &record[equals + 1..])
                .ok_or(BAD)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" if !self.has_sparse_name => self.path = Some(value.to_owned()),
            b"linkpath" => self.target = Some(value.to_owned()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime_ns = Some(nanoseconds(value)?),
            b"GNU.sparse.name" => {
                self.path = Some(value.to_owned());
                self.has_sparse_name = true;
            }
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.real_size = Some(decimal(value)?),
            b"GNU.sparse.major" => self.sparse_in_data = decimal(value)? >= 1,
            b"GNU.sparse.offset" => self.pending_offset = Some(decimal(value)?),
            b"GNU.sparse.numbytes" => {
                let region = (self.pending_offset.take()?, decimal(value)?);
                self.regions.get_or_insert_default().push(region);
            }
            b"GNU.sparse.map" => self.regions = Some(regions(value)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        Some(())
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Offsets and lengths in turn, separated by commas.
fn regions(list: &[u8]) -> Option<Vec<(u64, u64)>> {
    let numbers: Option<Vec<u64>> = list
        .split(|&byte| byte == b',')
        .filter(|number| !number.is_empty())
        .map(decimal)
        .collect();
    let (pairs, rest) = numbers.as_ref()?.as_chunks::<2>();
    rest.is_empty().then(|| {
        pairs
            .iter()
            .map(|&[offset, length]| (offset, length))
            .collect()
    })
}

/// A time in decimal seconds, with a fraction or without; may be before 1970.
fn nanoseconds(value: &[u8]) -> Option<i64> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let point = value.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = value.split_at(point.unwrap_or(value.len()));
    let mut nanoseconds = 0;
    let digits = fraction.get(1..).unwrap_or_default();
    for at in 0..9 {
        let digit = digits.get(at).copied().unwrap_or(b'0');
        nanoseconds = nanoseconds * 10 + i64::from(digit.checked_sub(b'0').filter(|d| *d < 10)?);
    }
    let seconds = i64::try_from(decimal(whole)?).unwrap_or(i64::MAX);
    let time = seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds);
    Some(if negative { -time } else { time })
}
