//! Unpacking a tar archive, which is taken to be hostile.

use std::io::Read;
use std::path::Path;

use super::{ImportError, ImportOptions, ImportReport};

/// Unpacks the archive file `archive` into `dest`, an existing empty directory. As
/// [`unpack_tar_from`].
///
/// # Errors
///
/// [`ImportError`]; `dest` is left half-written then.
pub fn unpack_tar(
    archive: &Path,
    _dest: &Path,
    _options: &ImportOptions,
) -> Result<ImportReport, ImportError> {
    Err(ImportError::invalid(archive, "under construction"))
}

/// Unpacks an archive, plain or compressed with gzip, zstd or xz (told by its first bytes).
/// `name` stands for it in errors.
///
/// Starts no thread: it can be called inside `UserNamespace::run`.
///
/// # Errors
///
/// [`ImportError`]; `dest` is left half-written then.
pub fn unpack_tar_from(
    _archive: &mut dyn Read,
    name: &Path,
    _dest: &Path,
    _options: &ImportOptions,
) -> Result<ImportReport, ImportError> {
    Err(ImportError::invalid(name, "under construction"))
}
