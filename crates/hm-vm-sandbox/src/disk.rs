//! The disk limit: a file system of that size holds what the VM writes.
//!
//! It lies in a file of the VM's own directory and is mounted detached, so that a kill leaves only
//! the file, which goes with the directory. A snapshot copies what was written into the store.
//! (Quotas would spare the copy, but few file systems are mounted with them.)

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use hm_vm_store::VmFiles;
use hm_vm_sys::disk::LimitedDisk;

use crate::error::contract;

/// Why no disk limit can be enforced here, if so.
pub(crate) fn refusal() -> Option<String> {
    LimitedDisk::available().err().map(|why| why.to_string())
}

/// The limited file system of one VM.
#[derive(Debug)]
pub(crate) struct Disk {
    mount: Arc<OwnedFd>,
    /// Where it is attached for a command, relative to the store.
    place: PathBuf,
    /// The VM's own upper directory, whose attributes the one here has.
    model: PathBuf,
}

const BYTES_PER_GB: u64 = 1 << 30;

impl Disk {
    /// Makes a file system of `gb` gibibytes beside the VM's directories.
    pub(crate) fn new(store: &Path, files: &VmFiles, gb: u64) -> Result<Self> {
        let model = store.join(files.upper());
        let home = model.parent().context("a VM's directory")?;
        let image = home.join("disk.img");
        LimitedDisk::format(&image, gb.saturating_mul(BYTES_PER_GB), (0, 0))?;
        let mount = LimitedDisk::attach(&image)?.mount()?;
        let place = files.upper().with_file_name("disk");
        let target = store.join(&place);
        fs::create_dir(&target).with_context(|| format!("making {}", target.display()))?;
        let disk = Self {
            mount: Arc::new(mount),
            place,
            model,
        };
        disk.make_directories()?;
        Ok(disk)
    }

    /// The mount, and where it belongs.
    pub(crate) fn mount(&self) -> (Arc<OwnedFd>, PathBuf) {
        (Arc::clone(&self.mount), self.place.clone())
    }

    /// The writable directory, once the mount is in its place.
    pub(crate) fn upper(&self) -> PathBuf {
        self.place.join("upper")
    }

    /// The work directory beside it.
    pub(crate) fn work(&self) -> PathBuf {
        self.place.join("work")
    }

    /// A path of ours into the detached mount.
    pub(crate) fn inside(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.mount.as_raw_fd())).join(name)
    }

    /// Moves what was written into the VM's files. Blocks for as long as copying takes.
    pub(crate) fn settle(&self, files: &VmFiles) -> Result<()> {
        let upper = self.inside("upper");
        files.fill(&upper).map_err(contract)?;
        for name in ["upper", "work"] {
            let path = self.inside(name);
            fs::remove_dir_all(&path).with_context(|| format!("emptying the VM's {name}"))?;
        }
        self.make_directories()
    }

    fn make_directories(&self) -> Result<()> {
        let model = fs::metadata(&self.model)
            .with_context(|| format!("looking at {}", self.model.display()))?;
        for name in ["upper", "work"] {
            let path = self.inside(name);
            fs::create_dir(&path)
                .and_then(|()| chown(&path, Some(model.uid()), Some(model.gid())))
                .and_then(|()| {
                    fs::set_permissions(&path, fs::Permissions::from_mode(model.mode() & 0o7777))
                })
                .with_context(|| format!("making the VM's {name}"))?;
        }
        Ok(())
    }
}
