//! Bringing a file or a directory out of a snapshot. See [`copier`](super::copier) for what is
//! defended against.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hm_vm_core::SnapshotId;

use crate::error::{Context, StoreError};
use crate::store::Store;
use crate::view::View;
use crate::view::copier::{Copier, Manner};
use crate::view::merged::Node;
use crate::view::reader::guest_error;
use crate::view::resolve::resolve;

/// How to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Keep set-user-id, set-group-id and sticky bits.
    pub keep_special_bits: bool,
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Regular files.
    pub files: u64,
    /// Directories, those that existed included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of the regular files.
    pub bytes: u64,
    /// Guest paths that were left out: devices, fifos and sockets.
    pub skipped: Vec<PathBuf>,
}

impl Store {
    /// Copies a file or directory of a snapshot to the host. Into `host_dest/name` where
    /// `host_dest` is a directory, else as `host_dest` itself, whose parent must exist. Files that
    /// exist are replaced, directories merged. Symbolic links are copied as they are; the last
    /// component of `guest_path` is followed, inside the snapshot.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] when there is nothing at `guest_path`, or the destination has
    /// a symbolic link or another type of file where something is to be written; or a failure to
    /// read or write. What was copied before stays.
    pub fn copy_out(
        &self,
        snapshot: &SnapshotId,
        guest_path: &Path,
        host_dest: &Path,
    ) -> Result<CopyReport, StoreError> {
        self.copy_out_with(snapshot, guest_path, host_dest, CopyOptions::default())
    }

    /// As [`copy_out`](Self::copy_out), with options.
    ///
    /// # Errors
    ///
    /// As `copy_out`.
    pub fn copy_out_with(
        &self,
        snapshot: &SnapshotId,
        guest_path: &Path,
        host_dest: &Path,
        options: CopyOptions,
    ) -> Result<CopyReport, StoreError> {
        let view = self.view(snapshot)?;
        let dest = std::path::absolute(host_dest).context("finding", host_dest)?;
        self.core()
            .files
            .run(|| copy(&view, guest_path, &dest, options))?
    }
}

fn copy(
    view: &View,
    guest_path: &Path,
    dest: &Path,
    options: CopyOptions,
) -> Result<CopyReport, StoreError> {
    let found = resolve(&view.tree, guest_path.as_os_str().as_bytes(), true)
        .and_then(|found| found.node.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|error| guest_error(guest_path, error))?;
    let (parent, name) = destination(dest, guest_path)?;
    let manner = Manner {
        special_bits: options.keep_special_bits,
        leave_equal: false,
    };
    let mut copier = Copier::new(&view.tree, &parent, manner)?;
    let name = CString::new(name.into_vec())
        .map_err(|_| StoreError::invalid(dest.display().to_string(), "it contains a NUL byte"))?;
    match found {
        Node::Leaf(leaf) => copier.leaf(&leaf, b"", &name)?,
        Node::Directory(directory) => copier.tree(directory, &name)?,
    }
    Ok(copier.finish()?.report)
}

/// Directory and name to write to.
fn destination(dest: &Path, guest_path: &Path) -> Result<(PathBuf, OsString), StoreError> {
    let invalid = |reason| StoreError::invalid(dest.display().to_string(), reason);
    // A directory of the caller's choice, symbolic links in it included.
    if dest.is_dir() {
        return Ok(match guest_path.file_name() {
            Some(name) => (dest.to_owned(), name.to_owned()),
            None => (dest.to_owned(), ".".into()),
        });
    }
    match (dest.parent(), dest.file_name()) {
        (Some(parent), Some(name)) if parent.is_dir() => Ok((parent.to_owned(), name.to_owned())),
        (Some(_), Some(_)) => Err(invalid("its parent directory does not exist")),
        _ => Err(invalid("it is not a path that something can be written to")),
    }
}
