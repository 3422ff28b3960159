//! The first look at a registry file: enough to refuse a wrong one without SQLite touching it.
//!
//! SQLite, once it has opened a file in WAL mode, writes files beside it and may write to it. A
//! file that is not ours must stay as it is, byte for byte, so its header is read first. Ours
//! carries `application_id` in the file proper and not only in the WAL, as the schema is made
//! before WAL is switched on.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::error::RegistryError;
use super::schema::{APPLICATION_ID, VERSION, newer};

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;

/// Fails when the file is certainly not a registry of ours. A missing or empty one passes.
///
/// # Errors
///
/// [`RegistryError::BadState`], or [`RegistryError::Io`] when it cannot be read.
pub(super) fn check(path: &Path) -> Result<(), RegistryError> {
    let io = |doing| {
        move |source| RegistryError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    let bad = |reason: &str| {
        Err(RegistryError::BadState {
            path: path.to_owned(),
            reason: reason.to_owned(),
        })
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file.map_err(io("open"))?,
    };
    let metadata = file.metadata().map_err(io("read the metadata of"))?;
    if !metadata.is_file() {
        return bad("it is not a file");
    }
    if metadata.len() == 0 {
        return Ok(());
    }
    let mut seen = match look(&file) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return bad("it is not a registry: too short");
        }
        seen => seen.map_err(io("read"))?,
    };
    let header = seen.header;
    if &header[..MAGIC.len()] != MAGIC {
        return bad("it is not a registry: move it away, or name another file");
    }
    if field(&header, 68) != APPLICATION_ID {
        return bad("it is the SQLite database of another program");
    }
    let version = field(&header, 60);
    if version > VERSION {
        return bad(&newer(version));
    }
    // Another process may be in the middle of a commit, which writes the page count before the
    // pages. A file is cut short for good when it stays the same around a moment at which no
    // transaction was on its way.
    while is_short(&seen) && !has_journal(path) {
        let again = look(&file).map_err(io("read"))?;
        if again == seen {
            return bad("it is cut short: move it away to start with an empty one");
        }
        seen = again;
    }
    Ok(())
}

/// What the file looked like at one moment.
#[derive(PartialEq)]
struct Seen {
    header: [u8; HEADER_BYTES],
    len: u64,
}

fn look(file: &File) -> std::io::Result<Seen> {
    let mut header = [0u8; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)?;
    let len = file.metadata()?.len();
    Ok(Seen { header, len })
}

/// A big-endian field of SQLite's header.
fn field(header: &[u8; HEADER_BYTES], offset: usize) -> i32 {
    let mut bytes = [0u8; 4];
    bytes.copy_from_slice(&header[offset..offset + 4]);
    i32::from_be_bytes(bytes)
}

/// Whether pages are missing at the end.
fn is_short(seen: &Seen) -> bool {
    let header = &seen.header;
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    // The page count is valid only when the two change counters agree.
    field(header, 24) == field(header, 92)
        && u64::from(field(header, 28).unsigned_abs()) * page_bytes > seen.len
}

/// Whether SQLite has something to bring in from a journal or WAL, after which the file is whole:
/// until then it may rightly be shorter than its header says, also after a crash.
fn has_journal(path: &Path) -> bool {
    ["-wal", "-journal"].iter().any(|suffix| {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        std::fs::metadata(beside).is_ok_and(|beside| beside.len() > 0)
    })
}
