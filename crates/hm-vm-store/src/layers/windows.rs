//! Memory for decompression: large windows are had by one layer at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Binary logarithm of the largest window that every layer may have: 8 MiB, what compressors use but at their
/// highest levels.
pub(super) const SMALL_WINDOW: u32 = 23;

/// Binary logarithm of the largest window at all: 128 MiB.
pub(super) const LARGE_WINDOW: u32 = 27;

/// Bytes that an xz stream may take. The strongest preset takes 65 MiB.
pub(super) const XZ_MEMORY: u64 = 80 << 20;

static LARGE: Mutex<()> = Mutex::new(());

/// The right to a large window.
pub(super) type LargeWindow = MutexGuard<'static, ()>;

/// Waits for the right to a large window.
pub(super) fn large_window() -> LargeWindow {
    LARGE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Binary logarithm, rounded up, of the window that a zstd frame asks for by its first bytes. `None` when they are not
/// enough to tell.
pub(super) fn zstd_window(start: &[u8]) -> Option<u32> {
    if !start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return None;
    }
    let descriptor = *start.get(4)?;
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let window = *start.get(5)?;
        let exponent = 10 + u32::from(window >> 3);
        return Some(exponent + u32::from(window & 7 != 0));
    }
    // The window is the whole content, whose size follows the id of the dictionary.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = start.get(5 + dictionary..5 + dictionary + length)?;
    let size = field
        .iter()
        .rev()
        .fold(0_u64, |size, &byte| size << 8 | u64::from(byte));
    let size = size + if length == 2 { 256 } else { 0 };
    Some(size.max(1).next_power_of_two().ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_from_the_first_bytes() {
        let frame = |level, log: Option<u32>, size: usize| {
            let mut encoder = zstd::Encoder::new(Vec::new(), level).unwrap();
            if let Some(log) = log {
                encoder.long_distance_matching(true).unwrap();
                encoder.window_log(log).unwrap();
            }
            std::io::Write::write_all(&mut encoder, &vec![7; size]).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(zstd_window(&frame(3, None, 1 << 20)), Some(21));
        assert_eq!(zstd_window(&frame(19, None, 1 << 20)), Some(23));
        assert_eq!(zstd_window(&frame(3, Some(27), 1 << 20)), Some(27));
        let whole = zstd::bulk::compress(&vec![7; 300], 3).unwrap();
        assert_eq!(zstd_window(&whole), Some(9));
        assert_eq!(zstd_window(b"\x28\xb5"), None);
    }
}
