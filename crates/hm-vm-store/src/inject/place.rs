//! The directories on the way to the place of an inject.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use super::{DirectoryAttributes, GuestEntry, GuestView, InjectError};
use crate::beneath::join;

/// The guest directory, taken apart.
#[derive(Debug)]
pub(super) struct Place {
    /// Path below the layer's root; empty for the root itself.
    pub(super) path: Vec<u8>,
    /// The root and each directory down to the last, with what it is to have.
    pub(super) directories: Vec<(Vec<u8>, DirectoryAttributes)>,
}

impl Place {
    /// Checks the path and looks up what exists of it.
    pub(super) fn find(guest_dir: &Path, guest: &dyn GuestView) -> Result<Self, InjectError> {
        let path = layer_path(guest_dir)?;
        let mut directories = vec![(Vec::new(), attributes_of(Path::new("/"), guest)?)];
        let mut here = Vec::new();
        for name in path
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
        {
            here = join(&here, name);
            let guest_path = Path::new("/").join(crate::beneath::as_path(&here));
            directories.push((here.clone(), attributes_of(&guest_path, guest)?));
        }
        Ok(Self { path, directories })
    }
}

/// Path of a guest directory below the root of a layer.
pub(super) fn layer_path(guest_dir: &Path) -> Result<Vec<u8>, InjectError> {
    if !guest_dir.is_absolute() {
        return Err(InjectError::invalid(guest_dir, "it must be absolute"));
    }
    let mut path = Vec::new();
    for component in guest_dir.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) if !name.as_bytes().contains(&0) => {
                path = join(&path, name.as_bytes());
            }
            _ => return Err(InjectError::invalid(guest_dir, "it must be a plain path")),
        }
    }
    Ok(path)
}

fn attributes_of(path: &Path, guest: &dyn GuestView) -> Result<DirectoryAttributes, InjectError> {
    match guest.entry(path) {
        Ok(None) => Ok(DirectoryAttributes::default()),
        Ok(Some(GuestEntry::Directory(attributes))) => Ok(attributes),
        Ok(Some(GuestEntry::Symlink)) => Err(InjectError::invalid(
            path,
            "it is a symbolic link in the guest",
        )),
        Ok(Some(GuestEntry::Other)) => Err(InjectError::invalid(
            path,
            "it is not a directory in the guest",
        )),
        Err(error) => Err(InjectError::file("looking at the guest's", path, error)),
    }
}
