//! The recorded output of commands.
//!
//! # Format
//!
//! ```text
//! "hm-vm log 2\n"  u32 length of the key  key  u64 beginning  zstd stream of records
//! record:  u8 tag (1 stdout, 2 stderr)  u32 length  u64 time  bytes
//! end:     u8 0  u64 bytes of output in total
//! ```
//!
//! Numbers are little-endian. The beginning is in milliseconds since 1970, a record's time in milliseconds since
//! the beginning. Chunks are kept as the command wrote them (but for secrets, which are replaced), in the
//! order in which the two streams arrived. Without the end record a log is not complete; with a wrong
//! checksum it is corrupt. Version 1 had neither the beginning nor the times.
//!
//! # Life of a file
//!
//! `logs/tmp/NAME`, locked (flock) by its writer, who may die → the entry's row names it → renamed
//! to `logs/NAME` → the row is gone, and the name is among the doomed → unlinked. A file in `tmp`
//! that nobody holds is completed when its key's row names it, and unlinked otherwise.
//!
//! A log that the caller asks for is the same file under a second name, or a copy where that cannot
//! be. It belongs to the caller, and stays whatever becomes of the execution.

mod files;
#[cfg(feature = "sandbox")]
mod foreign;
mod mask;
mod reader;
mod record;
mod replay;
mod writer;

use std::time::Duration;

pub(crate) use files::LogFiles;
#[cfg(feature = "sandbox")]
pub(crate) use foreign::check_log;
pub(crate) use mask::Mask;
pub use reader::{LogChunk, LogNext, LogReader};
pub(crate) use record::Recorder;
pub(crate) use replay::{Replay, ReplayError};
pub(crate) use writer::{Destination, RecordedOutput};

const MAGIC_1: &[u8; 12] = b"hm-vm log 1\n";
const MAGIC: &[u8; 12] = b"hm-vm log 2\n";
const END: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// Latest time that is read back, a thousand years from 1970: who shows it must not be surprised.
const MAX_TIME: Duration = Duration::from_secs(1000 * 365 * 24 * 60 * 60);

/// Longest key that is read back from a log: beyond it the file is corrupt.
const MAX_KEY_BYTES: usize = 1 << 20;
