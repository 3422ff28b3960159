//! Reading and writing control files, with errors that name them.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::error::SysError;

/// Writes one value to a control file, which must exist.
pub(super) fn write(path: &Path, value: &str) -> Result<(), SysError> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|e| SysError::new(format!("writing {value:?} to {}", path.display()), e))
}

/// The words of a control file; none if it is not there.
pub(super) fn words(path: &Path) -> Vec<String> {
    fs::read_to_string(path)
        .map(|text| text.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default()
}

/// The number that a control file consists of.
pub(super) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after `key` in a control file of lines "key number".
pub(super) fn number_of(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// Whether the kernel would let us write there, as far as can be said beforehand.
pub(super) fn writable(path: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Whether the control file names processes. One that cannot be read counts as having some.
pub(super) fn has_processes(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.procs")).map_or(true, |text| !text.trim().is_empty())
}

/// Makes a directory; one that exists is fine.
pub(super) fn make_dir(path: &Path) -> Result<(), SysError> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(SysError::new(
            format!("making the control group {}", path.display()),
            e,
        )),
        _ => Ok(()),
    }
}
