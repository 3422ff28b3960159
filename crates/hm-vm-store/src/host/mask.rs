//! The layer over the host's root that hides its private parts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::HostError;
use super::private::{Mask, plan};

/// What to hide beside the usual.
#[derive(Clone, Debug, Default)]
pub struct HostMaskOptions {
    /// The store: hidden, wherever it is.
    pub store_root: PathBuf,
    /// Further absolute paths to hide.
    pub extra: Vec<PathBuf>,
}

/// Makes the layer tree `dest_tree` (an existing empty directory), which lies over the host's
/// root and hides what is not to be seen in a VM:
///
/// * home directories of all people in `/etc/passwd`, `/root`, `/home`;
/// * run-time state: `/run`, `/tmp`, `/var/tmp`, `/proc`, `/sys`, `/dev`, `/mnt`, `/media`, `/srv`,
///   mail, logs (their directories stay, empty), core dumps, states of container engines, virtual
///   machines and databases;
/// * secrets: everything in `/etc`, in the upper levels of `/var` and in `/` itself that others than
///   its owner and group may not read: such a directory is empty, such a file has no content, both
///   keep mode and owner; the keys and credentials that are known by name, whatever their modes;
/// * the store, and what `options` name.
///
/// A hidden directory is opaque: nothing of the host shows in it. `/etc/resolv.conf`, `/etc/hosts`
/// and `/etc/hostname` are empty regular files, whatever they are on the host, so that they can
/// be mounted over. Only what exists is hidden, as it is at the time of the call.
///
/// Starts no thread: it can be called inside `UserNamespace::run`.
///
/// # Errors
///
/// A failure to look at the host or to write; `dest_tree` is left half-made then.
pub fn mask_layer(dest_tree: &Path, options: &HostMaskOptions) -> Result<(), HostError> {
    let writer = MaskWriter { dest: dest_tree };
    let masks = plan(options)?;
    copy_attributes(Path::new("/"), dest_tree)
        .map_err(|error| HostError::file("making the mask of", Path::new("/"), error))?;
    for (path, mask) in outermost(&masks) {
        match writer.mask(path, *mask) {
            // Lock files and the like come and go.
            Err(_) if is_gone(path) => writer.unmask(path),
            masked => {
                masked.map_err(|error| HostError::file("making the mask of", path, error))?;
            }
        }
    }
    Ok(())
}

/// Digest, in hex, of what [`mask_layer`] would hide now and how: when it differs, a mask made
/// earlier must not be used any more. Takes a few milliseconds.
///
/// # Errors
///
/// A failure to look at the host.
pub fn mask_identity(options: &HostMaskOptions) -> Result<String, HostError> {
    let masks = plan(options)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"hm-vm host mask 1\n");
    for (path, mask) in outermost(&masks) {
        let mode = path.symlink_metadata().map_or(0, |stat| stat.mode());
        hasher.update(format!("{path:?} {mask:?} {mode:o}\n").as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Leaves out what lies in a hidden directory.
fn outermost(masks: &BTreeMap<PathBuf, Mask>) -> impl Iterator<Item = (&PathBuf, &Mask)> {
    masks.iter().filter(|(path, _)| {
        let mut above = path.ancestors().skip(1);
        !above.any(|above| masks.contains_key(above))
    })
}

struct MaskWriter<'a> {
    dest: &'a Path,
}

impl MaskWriter<'_> {
    fn place(&self, path: &Path) -> PathBuf {
        self.dest.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn mask(&self, path: &Path, mask: Mask) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.make_parents(parent)?;
        }
        let place = self.place(path);
        match mask {
            Mask::Directory { mode } => {
                self.opaque(path, &place)?;
                if let Some(mode) = mode {
                    fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
                }
            }
            Mask::DirectoryWithSkeleton => {
                self.opaque(path, &place)?;
                self.skeleton(path, &place)?;
            }
            Mask::EmptyFile => {
                create_empty(&place)?;
                copy_attributes(path, &place)?;
            }
            Mask::BlankFile => {
                create_empty(&place)?;
                fs::set_permissions(&place, fs::Permissions::from_mode(0o644))?;
            }
            Mask::Whiteout => {
                let kind = FileType::CharacterDevice;
                rustix::fs::mknodat(CWD, &place, kind, Mode::empty(), 0)?;
            }
        }
        Ok(())
    }

    /// Takes back what was made for a path that has gone meanwhile.
    fn unmask(&self, path: &Path) {
        let place = self.place(path);
        // One of them is of the wrong kind, or none was made.
        let _ = fs::remove_file(&place);
        let _ = fs::remove_dir_all(&place);
    }

    /// Makes the directories that lead to a hidden path: as they are on the host, since those of
    /// the mask are the ones that count.
    fn make_parents(&self, parent: &Path) -> io::Result<()> {
        let mut above: Vec<&Path> = parent.ancestors().collect();
        above.reverse();
        for path in above {
            let place = self.place(path);
            match fs::create_dir(&place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made?;
                    copy_attributes(path, &place)?;
                }
            }
        }
        Ok(())
    }

    fn opaque(&self, path: &Path, place: &Path) -> io::Result<()> {
        fs::create_dir(place)?;
        rustix::fs::setxattr(place, "user.overlay.opaque", b"y", XattrFlags::empty())?;
        copy_attributes(path, place)
    }

    /// Makes the directories again that are in a hidden one: programs expect them.
    fn skeleton(&self, path: &Path, place: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let place = place.join(entry.file_name());
                fs::create_dir(&place)?;
                copy_attributes(&entry.path(), &place)?;
            }
        }
        Ok(())
    }
}

fn is_gone(path: &Path) -> bool {
    let stat = path.symlink_metadata();
    stat.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn create_empty(place: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(place).map(drop)
}

/// Gives `place` the owner and mode of the host's `path`.
fn copy_attributes(path: &Path, place: &Path) -> io::Result<()> {
    /// What an owner that a user namespace does not know reads as there: the host's root, mostly.
    const OVERFLOW_ID: u32 = 65534;
    let stat = fs::symlink_metadata(path)?;
    let known = |id| if id == OVERFLOW_ID { 0 } else { id };
    match lchown(place, Some(known(stat.uid())), Some(known(stat.gid()))) {
        // The owner cannot be had here: then it is the guest's root.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
            ) => {}
        owned => owned?,
    }
    fs::set_permissions(place, fs::Permissions::from_mode(stat.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opaque(path: &Path) -> bool {
        let mut value = [0; 4];
        rustix::fs::getxattr(path, "user.overlay.opaque", &mut value[..]) == Ok(1)
    }

    #[test]
    fn private_parts_of_this_machine_are_hidden() {
        let dest = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir_in("/usr/local").ok();
        let extra = other.iter().map(|other| other.path().to_owned()).collect();
        let options = HostMaskOptions {
            store_root: dest.path().to_owned(),
            extra,
        };
        mask_layer(dest.path(), &options).unwrap();
        let place = |path: &str| dest.path().join(path);
        let mode = |path: &str| fs::metadata(place(path)).unwrap().mode() & 0o7777;
        for path in ["root", "tmp", "proc", "sys", "dev"] {
            assert!(opaque(&place(path)), "{path}");
            let entries = fs::read_dir(place(path)).unwrap();
            assert_eq!(entries.count(), 0, "{path}");
        }
        assert_eq!((mode("root"), mode("tmp")), (0o700, 0o1777));
        for path in ["etc/resolv.conf", "etc/hosts", "etc/hostname"] {
            let stat = fs::symlink_metadata(place(path)).unwrap();
            assert!(stat.is_file() && stat.len() == 0, "{path}");
        }
        let shadow = fs::metadata(place("etc/shadow")).unwrap();
        let host_shadow = fs::metadata("/etc/shadow").unwrap();
        assert_eq!((shadow.len(), shadow.mode()), (0, host_shadow.mode()));
        assert!(!opaque(&place("etc")) && !opaque(dest.path()));
        assert!(!place("etc/passwd").exists());
        if let Some(other) = &other {
            let hidden = place(other.path().strip_prefix("/").unwrap().to_str().unwrap());
            assert!(opaque(&hidden));
            assert!(!opaque(&place("usr/local")));
            assert_eq!(
                mode("usr/local"),
                fs::metadata("/usr/local").unwrap().mode() & 0o7777
            );
        }
    }

    #[test]
    fn the_identity_tells_what_is_hidden() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let plain = HostMaskOptions::default();
        let identity = mask_identity(&plain).unwrap();
        assert_eq!(identity, mask_identity(&plain).unwrap());
        let extra = HostMaskOptions {
            extra: vec!["/usr/share".into(), root.path().to_owned()],
            ..plain
        };
        assert_ne!(identity, mask_identity(&extra).unwrap());
    }
}
