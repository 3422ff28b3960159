//! Headers of members: POSIX ustar, with an extended header where that has no room.

use tar::{EntryType, Header};

/// The largest numbers that fields of 8 and 12 bytes hold in octal.
const SHORT_MAX: u64 = 0o7_777_777;
const LONG_MAX: u64 = 0o77_777_777_777;

/// Bytes of the fields for name and target.
const NAME_BYTES: usize = 100;

const BLOCK: usize = 512;

/// Name and value of an extended attribute.
pub(super) type Xattr = (Vec<u8>, Vec<u8>);

/// One member, whose data follows its header.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) size: u64,
    /// Of links.
    pub(super) target: &'a [u8],
    /// Major and minor number of devices.
    pub(super) device: Option<(u32, u32)>,
    /// Sorted by name.
    pub(super) xattrs: Vec<Xattr>,
}

impl Member<'_> {
    /// Its headers, a multiple of 512 bytes.
    pub(super) fn headers(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BLOCK);
        let records = self.records();
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            put_name(&mut header.as_mut_bytes()[..NAME_BYTES], b"PaxHeaders/0");
            header.set_entry_type(EntryType::XHeader);
            header.set_mode(0o644);
            finish(&mut header, records.len() as u64, 0, 0, 0);
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(&records);
            bytes.resize(bytes.len() + padding(records.len() as u64), 0);
        }
        let mut header = Header::new_ustar();
        put_name(&mut header.as_mut_bytes()[..NAME_BYTES], self.path);
        put_name(
            &mut header.as_mut_bytes()[157..157 + NAME_BYTES],
            self.target,
        );
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        if let (Some((major, minor)), Some(fields)) = (self.device, header.as_ustar_mut()) {
            fields.set_device_major(major);
            fields.set_device_minor(minor);
        }
        let seconds = u64::try_from(self.mtime.0).unwrap_or(0);
        finish(&mut header, self.size, self.uid, self.gid, seconds);
        bytes.extend_from_slice(header.as_bytes());
        bytes
    }

    /// What the plain header has no room for, sorted by name.
    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for (name, value) in &self.xattrs {
            push_record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        let number = |records: &mut Vec<u8>, name: &str, value: u64, max: u64| {
            if value > max {
                push_record(records, name.as_bytes(), value.to_string().as_bytes());
            }
        };
        number(&mut records, "gid", self.gid.into(), SHORT_MAX);
        if self.target.len() > NAME_BYTES {
            push_record(&mut records, b"linkpath", self.target);
        }
        let (seconds, nanoseconds) = self.mtime;
        if nanoseconds != 0 || !u64::try_from(seconds).is_ok_and(|seconds| seconds <= LONG_MAX) {
            let text = decimal_seconds(seconds, nanoseconds);
            push_record(&mut records, b"mtime", text.as_bytes());
        }
        if self.path.len() > NAME_BYTES {
            push_record(&mut records, b"path", self.path);
        }
        number(&mut records, "size", self.size, LONG_MAX);
        number(&mut records, "uid", self.uid.into(), SHORT_MAX);
        records
    }
}

/// Bytes that fill the last block of so many.
pub(super) fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    (BLOCK - over) % BLOCK
}

/// Numbers that have no room are zero here: the extended header has them.
fn finish(header: &mut Header, size: u64, uid: u32, gid: u32, mtime: u64) {
    let fitting = |value: u64, max: u64| if value > max { 0 } else { value };
    header.set_size(fitting(size, LONG_MAX));
    header.set_uid(fitting(uid.into(), SHORT_MAX));
    header.set_gid(fitting(gid.into(), SHORT_MAX));
    header.set_mtime(fitting(mtime, LONG_MAX));
    header.set_cksum();
}

fn put_name(field: &mut [u8], name: &[u8]) {
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
}

/// `length name=value\n`, the length counting all of it.
fn push_record(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(name);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// A time in decimal seconds without needless digits, also before 1970.
fn decimal_seconds(seconds: i64, nanoseconds: u32) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let (whole, part) = (total.abs() / 1_000_000_000, total.abs() % 1_000_000_000);
    if part == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{part:09}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for (value, length) in [(1, 8), (91, 99), (92, 101), (990, 999), (991, 1001)] {
            let mut records = Vec::new();
            push_record(&mut records, b"key", &vec![b'x'; value]);
            assert!(records.starts_with(format!("{} key=", records.len()).as_bytes()));
            assert_eq!(records.len(), length, "{value}");
        }
    }

    #[test]
    fn times_are_decimal() {
        assert_eq!(decimal_seconds(1, 500_000_000), "1.5");
        assert_eq!(decimal_seconds(-1, 0), "-1");
        assert_eq!(decimal_seconds(-1, 750_000_000), "-0.25");
        assert_eq!(decimal_seconds(1 << 40, 1), "1099511627776.000000001");
    }
}
