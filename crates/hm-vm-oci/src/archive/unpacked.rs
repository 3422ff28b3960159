//! Archives that are compressed as a whole: `docker save x | gzip`.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tar::Header;

use super::LocalOptions;
use crate::OciError;

/// Unpacks it into a file without a name. Nothing when its first member shows that it is no image: that costs no more
/// than one block.
pub(super) fn unpack(
    file: File,
    path: &Path,
    options: &LocalOptions,
) -> Result<Option<File>, OciError> {
    let failed = |error| OciError::of_io("unpacking", path.display(), error);
    let mut input = decoder(file).map_err(failed)?;
    let mut start = Vec::new();
    (&mut input)
        .take(512)
        .read_to_end(&mut start)
        .map_err(failed)?;
    if !is_image(&start) {
        return Ok(None);
    }
    let beside = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let scratch = options
        .scratch
        .as_deref()
        .or(beside)
        .unwrap_or(Path::new("."));
    let mut output = tempfile::tempfile_in(scratch).map_err(|error| {
        OciError::of_io("making a file without a name in", scratch.display(), error)
    })?;
    let written = |error| OciError::of_io("unpacking into", scratch.display(), error);
    output.write_all(&start).map_err(written)?;
    let mut left = options.unpacked_limit.saturating_sub(start.len() as u64);
    let mut piece = vec![0; 128 * 1024];
    loop {
        options.cancel.check().map_err(OciError::Cancelled)?;
        let count = match input.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        left = left.checked_sub(count as u64).ok_or_else(|| {
            let reason = format!(
                "it has more than {} bytes, unpacked",
                options.unpacked_limit
            );
            OciError::invalid(path.display().to_string(), reason)
        })?;
        output.write_all(&piece[..count]).map_err(written)?;
    }
    Ok(Some(output))
}

fn decoder(mut file: File) -> io::Result<Box<dyn Read>> {
    let mut start = [0; 2];
    file.read_exact_at(&mut start, 0)?;
    file.seek(SeekFrom::Start(0))?;
    let input = BufReader::with_capacity(128 * 1024, file);
    Ok(match start {
        [0x1f, 0x8b] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        _ => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
    })
}

/// Whether the first member has a name that images begin with: `blobs`, `index.json`, `sha256:…`, or 64 hexadecimal
/// digits and perhaps more.
fn is_image(block: &[u8]) -> bool {
    if block.len() < 512 {
        return false;
    }
    let name = Header::from_byte_slice(block).path_bytes().into_owned();
    let name = name.strip_prefix(b"./").unwrap_or(&name);
    let first = name.split(|&byte| byte == b'/').next().unwrap_or(name);
    let is_id = |part: &[u8]| part.len() >= 64 && part[..64].iter().all(u8::is_ascii_hexdigit);
    matches!(
        first,
        b"blobs" | b"index.json" | b"manifest.json" | b"oci-layout" | b"repositories"
    ) || first.starts_with(b"sha256:")
        || is_id(first)
}
