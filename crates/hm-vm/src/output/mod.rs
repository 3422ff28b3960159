//! The stored output of commands.
//!
//! # Format
//!
//! ```text
//! "hm-vm log 1\n"  u32 length of the key  key  zstd stream of records
//! record:  u8 tag (1 stdout, 2 stderr)  u32 length  bytes
//! end:     u8 0  u64 bytes of output in total
//! ```
//!
//! Numbers are little-endian. Chunks are kept as the command wrote them, in the order in which the
//! two streams arrived. Without the end record, or with a wrong checksum, a log is corrupt.
//!
//! # Life of a file
//!
//! `logs/tmp/NAME`, locked (flock) by its writer, who may die → the entry's row names it → renamed
//! to `logs/NAME` → the row is gone, and the name is among the doomed → unlinked. A file in `tmp`
//! that nobody holds is completed when its key's row names it, and unlinked otherwise.

mod files;
mod record;
mod replay;

pub(crate) use files::LogFiles;
pub(crate) use record::{RecordedOutput, Recorder};
pub(crate) use replay::{Replay, ReplayError};

const MAGIC: &[u8] = b"hm-vm log 1\n";
const END: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// Longest key that is read back from a log: beyond it the file is corrupt.
const MAX_KEY_BYTES: usize = 1 << 20;
