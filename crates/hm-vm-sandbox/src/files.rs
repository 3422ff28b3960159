//! Places of the backend's own in the store: mount points that no VM writes to.
//!
//! ```text
//! mounts/root        where a VM's root is put together; each VM does so in a mount namespace of
//!                    its own, so that one directory serves them all
//! mounts/host        where the host's root is attached
//! mounts/empty       where an empty file system is mounted
//! mounts/host-view   a read-only overlay of these two: the lowest layer of the `host` image. (The
//!                    host's root itself cannot be one: the other layers lie inside of it, which
//!                    overlayfs refuses as overlapping)
//! mounts/skeleton    lowest layer of every VM: the directories and files that we mount over, for
//!                    images that lack them, so that no snapshot gets them
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) const MOUNTS: &str = "mounts";
pub(crate) const ROOT: &str = "mounts/root";
pub(crate) const HOST: &str = "mounts/host";
pub(crate) const EMPTY: &str = "mounts/empty";
pub(crate) const HOST_VIEW: &str = "mounts/host-view";
pub(crate) const SKELETON: &str = "mounts/skeleton";
pub(crate) const HOST_SKELETON: &str = "mounts/host-skeleton";

const DIRECTORIES: [&str; 6] = ["proc", "sys", "dev", "etc", "tmp", "root"];
const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// Makes what is missing of these places. Any number of processes may do so at once.
pub(crate) fn prepare(store: &Path) -> Result<()> {
    let mounts = store.join(MOUNTS);
    make_directory(&mounts, 0o700)?;
    for place in [ROOT, HOST, EMPTY, HOST_VIEW, SKELETON] {
        make_directory(&store.join(place), 0o755)?;
    }
    let skeleton = store.join(SKELETON);
    for name in DIRECTORIES {
        let mode = match name {
            "tmp" => 0o1777,
            "root" => 0o700,
            _ => 0o755,
        };
        make_directory(&skeleton.join(name), mode)?;
    }
    for name in FILES {
        make_file(&skeleton.join(name))?;
    }
    Ok(())
}

/// A directory of the host that an ordinary user's `host` image shows as it is, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown(pub(crate) PathBuf);

/// Top-level directories of the host that hold programs and their configuration. All else of the
/// host stays hidden: homes, run-time state, other people's data.
const SHOWN: [&str; 12] = [
    "bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "nix", "gnu", "snap",
];

/// Makes the skeleton of an ordinary user's `host` image, and returns what it shows.
///
/// An ordinary user cannot have the host's root as a layer: the kernel refuses a layer with mounts
/// of somebody else below it, and owners could not be translated. Directories are bound instead.
pub(crate) fn prepare_host(store: &Path) -> Result<Vec<Shown>> {
    let skeleton = store.join(HOST_SKELETON);
    make_directory(&skeleton, 0o755)?;
    let mut shown = Vec::new();
    for name in SHOWN {
        let host = Path::new("/").join(name);
        let place = skeleton.join(name);
        let Ok(kind) = fs::symlink_metadata(&host) else {
            continue;
        };
        if kind.is_symlink() {
            let target = fs::read_link(&host)
                .with_context(|| format!("reading the link {}", host.display()))?;
            ignore_existing(symlink(target, &place))
                .with_context(|| format!("making the link {}", place.display()))?;
        } else if kind.is_dir() {
            make_directory(&place, 0o755)?;
            shown.push(Shown(PathBuf::from(name)));
        }
    }
    for (name, mode) in [("var", 0o755), ("run", 0o755), ("home", 0o755)] {
        make_directory(&skeleton.join(name), mode)?;
    }
    make_directory(&skeleton.join("var/tmp"), 0o1777)?;
    Ok(shown)
}

fn ignore_existing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Makes a directory with exactly this mode, whatever the process's file mode mask.
fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let made = fs::DirBuilder::new().mode(mode).create(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("making {}", path.display())),
        Ok(()) => {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
                .with_context(|| format!("setting the mode of {}", path.display()))
        }
    }
}

fn make_file(path: &Path) -> Result<()> {
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path);
    ignore_existing(made.map(drop)).with_context(|| format!("making {}", path.display()))
}
