//! Frames without fields.

use super::request::{Nonce, RequestError};

/// Payloads are no larger.
pub(super) const LARGEST: usize = 32 << 20;
/// Typed bytes in one frame.
const TYPED: usize = 16 << 10;

/// One frame. The payload must have been measured.
pub(super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(kind);
    bytes.extend(length.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Removes files, and directories that are empty by then, in order: paths are relative to `base`, and followed through no symbolic
/// link. What is not there, or not empty, is left out. The report is [`Done`](super::ReportKind::Done) with the first error
/// number, 0 without one.
///
/// # Errors
///
/// A path has a zero byte in it, or all of them are too long for one frame.
pub fn remove_frame(
    nonce: &Nonce,
    base: &str,
    paths: &[impl AsRef<[u8]>],
) -> Result<Vec<u8>, RequestError> {
    let mut payload = nonce.bytes().to_vec();
    let paths = paths.iter().map(AsRef::as_ref);
    for path in std::iter::once(base.as_bytes()).chain(paths) {
        if path.contains(&0) {
            return Err(RequestError::ZeroByte {
                what: format!("path {:?}", String::from_utf8_lossy(path)),
            });
        }
        payload.extend_from_slice(path);
        payload.push(0);
    }
    if payload.len() > LARGEST {
        return Err(RequestError::TooLarge {
            bytes: payload.len(),
        });
    }
    Ok(frame(b'D', &payload))
}

/// Asks whether something accepts connections at a port of 127.0.0.1 or `::1`. The report is
/// [`Done`](super::ReportKind::Done) with 1 or 0. Takes two seconds at most.
pub fn probe_frame(nonce: &Nonce, port: u16) -> Vec<u8> {
    let mut payload = nonce.bytes().to_vec();
    payload.extend(port.to_le_bytes());
    frame(b'P', &payload)
}

/// Sends a signal (1 to 64) to every process of the command, and lets stopped ones go on.
pub fn signal_frame(signal: u32) -> Vec<u8> {
    frame(b'S', &signal.to_le_bytes())
}

/// Kills every process of the command.
pub fn kill_frame() -> Vec<u8> {
    frame(b'K', &[])
}

/// Typed bytes for the command's terminal, in as many frames as they need.
pub fn input_frames(typed: &[u8]) -> Vec<u8> {
    typed
        .chunks(TYPED)
        .flat_map(|chunk| frame(b'I', chunk))
        .collect()
}

/// A new size of the command's terminal, in character cells.
pub fn size_frame(columns: u16, rows: u16) -> Vec<u8> {
    frame(b'Z', &size(columns, rows))
}

pub(super) fn size(columns: u16, rows: u16) -> [u8; 4] {
    let ([c0, c1], [r0, r1]) = (columns.to_le_bytes(), rows.to_le_bytes());
    [c0, c1, r0, r1]
}

/// The user's terminal is gone: SIGHUP for every process of the command.
pub fn hang_up_frame() -> Vec<u8> {
    frame(b'H', &[])
}
