//! Files of the record: for the user alone, replaced at once, and every failure with its path.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use hm_vm_core::Error;

/// Adds what was being done to which path; a full disk becomes [`Error::NoSpace`].
pub(super) fn doing<T>(result: io::Result<T>, what: &str, path: &Path) -> Result<T> {
    let doing = || format!("{what} {}", path.display());
    match result {
        Ok(value) => Ok(value),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            ) =>
        {
            Err(Error::NoSpace { doing: doing() }.into())
        }
        Err(error) => Err(error).with_context(doing),
    }
}

/// Makes a directory with all above it; those that are there stay as they are.
pub(super) fn make_directories(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    doing(made, "creating", path)
}

/// Makes a directory of a name that nobody has, which begins with `prefix`.
pub(super) fn make_unique_directory(parent: &Path, prefix: &str) -> Result<PathBuf> {
    loop {
        let path = parent.join(format!("{prefix}{}", unique()));
        match DirBuilder::new().mode(0o700).create(&path) {
            // Of a process that died, and had this one's number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return doing(made, "creating", &path).map(|()| path),
        }
    }
}

/// Opens a file for appending, made when it is missing.
pub(super) fn open_appending(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(path);
    doing(file, "opening", path)
}

/// Writes a file through another one, so that nobody sees half of it.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", unique()));
    let temporary = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content));
    let replaced = doing(written, "writing", &temporary)
        .and_then(|()| doing(fs::rename(&temporary, path), "writing", path));
    if replaced.is_err() {
        // Best effort: the failure that is reported is the first one.
        drop(fs::remove_file(&temporary));
    }
    replaced
}

/// Removes a file that may be gone.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => doing(removed, "removing", path),
    }
}

/// Removes a directory that may be gone, with all that is in it.
pub(super) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => doing(removed, "removing", path),
    }
}

/// Reads a file that may be missing.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        content => doing(content, "reading", path).map(Some),
    }
}

/// Names in a directory that may be missing. Those that are not UTF-8 are none of ours.
pub(super) fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => doing(entries, "reading", directory)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = doing(entry, "reading", directory)?.file_name();
        names.extend(name.into_string().ok());
    }
    Ok(names)
}

/// A text that no other caller gets, in this process or another one that lives.
pub(super) fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{number}", std::process::id())
}
