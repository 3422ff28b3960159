//! Making, listing and removing caches.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use super::lock;
use crate::background::Job;
use crate::error::{Context, StoreError};
use crate::store::recovery::names;
use crate::store::{Core, Leftover, Store};
use crate::tree::measure::measure;

/// What the file with the name begins with: its version.
const NAME_PREFIX: &[u8] = b"hm-vm cache 1\n";
/// Longest name, in bytes.
const MAX_NAME: usize = 200;

/// A cache directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// The name that it is kept under.
    pub name: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was last asked for.
    pub last_used: SystemTime,
    /// Whether somebody uses it, in whatever process.
    pub in_use: bool,
}

/// A cache's name, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    name: String,
    hash: String,
}

impl Place {
    pub(super) fn of(name: &str) -> Result<Self, StoreError> {
        let invalid = |reason: &str| StoreError::invalid(format!("cache {name:?}"), reason);
        if name.is_empty() {
            return Err(invalid("its name is empty"));
        }
        if name.len() > MAX_NAME {
            return Err(invalid("its name is longer than 200 bytes"));
        }
        if name.contains('\0') {
            return Err(invalid("its name contains NUL"));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(NAME_PREFIX).update(name.as_bytes());
        let hash = hasher.finalize().to_hex()[..32].to_owned();
        Ok(Self {
            name: name.to_owned(),
            hash,
        })
    }

    /// Its directory.
    pub(super) fn path(&self, core: &Core) -> PathBuf {
        core.layout.caches().join(&self.hash)
    }

    /// What VMs see, relative to the store's root.
    pub(super) fn tree(&self) -> PathBuf {
        Path::new("caches").join(&self.hash).join("tree")
    }

    pub(super) fn in_use(&self) -> StoreError {
        StoreError::invalid(format!("cache {:?}", self.name), "it is in use")
    }
}

impl Store {
    /// The directory that is kept under `name`, relative to the store's root; made when it is
    /// missing. Whoever works in it uses [`use_cache`](Self::use_cache), so that it is not removed
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] for a name that is empty, longer than 200 bytes or has NUL in
    /// it; otherwise a failure of the system.
    pub fn cache_directory(&self, name: &str) -> Result<PathBuf, StoreError> {
        let place = Place::of(name)?;
        let core = self.core();
        loop {
            make(core, &place)?;
            match touch(&place.path(core).join("users")) {
                Ok(()) => return Ok(place.tree()),
                // Removed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("touching", place.path(core)),
            }
        }
    }

    /// All cache directories, by name. Reads every directory of theirs to tell the size.
    ///
    /// # Errors
    ///
    /// A failure to read.
    pub fn caches(&self) -> Result<Vec<CacheInfo>, StoreError> {
        let core = self.core();
        let mut found = Vec::new();
        for directory in directories(core)? {
            if let Some(name) = name_of(&directory)
                && let Some(info) = look(core, &directory, name)?
            {
                found.push(info);
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes a cache directory; its files go in the background. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] while it is in use, or for a name that none can have;
    /// otherwise a failure of the system.
    pub fn remove_cache(&self, name: &str) -> Result<bool, StoreError> {
        let place = Place::of(name)?;
        let core = self.core();
        let path = place.path(core);
        let Some(_alone) = lock::alone(core, &place)? else {
            return Ok(false);
        };
        let trash = core.discard(&path)?;
        let removed = trash.is_some();
        if let Some(trash) = trash {
            self.add_job(Job::Trash(trash));
        }
        Ok(removed)
    }

    /// Number of caches, and their bytes on disk.
    pub(crate) fn measure_caches(&self) -> Result<(u64, u64), StoreError> {
        let caches = self.caches()?;
        let bytes = caches.iter().map(|cache| cache.bytes).sum();
        Ok((caches.len() as u64, bytes))
    }
}

/// Makes a cache, unless it is there.
pub(super) fn make(core: &Core, place: &Place) -> Result<(), StoreError> {
    let path = place.path(core);
    if path.is_dir() {
        return Ok(());
    }
    make_private(&core.layout.caches())?;
    let new = core.layout.new_tmp(core.session.id);
    let made = fill(&new, place).and_then(|()| {
        match fs::rename(&new, &path) {
            // Somebody else was quicker.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
                ) =>
            {
                fs::remove_dir_all(&new).context("removing", &new)
            }
            other => other.context("creating", &path),
        }
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    made
}

pub(super) fn fill(new: &Path, place: &Place) -> Result<(), StoreError> {
    make_private(new)?;
    let path = new.join("name");
    let mut name = create(&path)?;
    // Synced: a loss of power must not leave a cache that nobody can name.
    name.write_all(NAME_PREFIX)
        .and_then(|()| name.write_all(place.name.as_bytes()))
        .and_then(|()| name.sync_all())
        .context("writing", &path)?;
    create(&new.join("lock"))?;
    create(&new.join("users"))?;
    let tree = new.join("tree");
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&tree)
        .context("creating", &tree)?;
    // Whatever the umask is: other users of the guest may look into it.
    fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .context("opening to all", &tree)
}

fn create(path: &Path) -> Result<fs::File, StoreError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .context("creating", path)
}

pub(super) fn make_private(path: &Path) -> Result<(), StoreError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.context("creating", path),
    }
}

/// Notes that a cache is used now.
pub(super) fn touch(users: &Path) -> io::Result<()> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    Ok(rustix::fs::utimensat(CWD, users, &times, AtFlags::empty())?)
}

/// All directories below `caches`.
fn directories(core: &Core) -> Result<Vec<PathBuf>, StoreError> {
    let caches = core.layout.caches();
    match names(&caches) {
        Ok(names) => Ok(names.into_iter().map(|name| caches.join(name)).collect()),
        Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// The name of the cache in a directory. `None` where it is none.
fn name_of(directory: &Path) -> Option<String> {
    let text = fs::read(directory.join("name")).ok()?;
    let name = text.strip_prefix(NAME_PREFIX)?.to_vec();
    let name = String::from_utf8(name).ok()?;
    let place = Place::of(&name).ok()?;
    (directory.file_name()? == place.hash.as_str()).then_some(name)
}

/// Looks at a cache. `None` when it went away.
fn look(core: &Core, directory: &Path, name: String) -> Result<Option<CacheInfo>, StoreError> {
    let gone = |error: &io::Error| error.kind() == ErrorKind::NotFound;
    let last_used = match fs::metadata(directory.join("users")) {
        Err(error) if gone(&error) => return Ok(None),
        found => found.context("examining", directory)?.modified(),
    };
    let tree = directory.join("tree");
    let bytes = match core.files.run(|| measure(&tree))? {
        Err(error) if gone(&error) => return Ok(None),
        size => size.context("measuring", &tree)?.bytes,
    };
    Ok(Some(CacheInfo {
        in_use: lock::is_in_use(directory)?,
        name,
        bytes,
        last_used: last_used.unwrap_or(UNIX_EPOCH),
    }))
}

/// Notes what lies between the caches and is none.
pub(crate) fn note_damaged(core: &Core, found: &mut Vec<Leftover>) -> Result<(), StoreError> {
    for path in directories(core)? {
        if name_of(&path).is_none() && path.symlink_metadata().is_ok() {
            found.push(Leftover {
                what: "a cache directory without its name",
                path,
            });
        }
    }
    Ok(())
}
