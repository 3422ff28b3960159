//! The store's directory: what is where, and whether it is safe to use.
//!
//! ```text
//! format              "hm-vm store 1\n"
//! store.db            the rows
//! layers/<n>/tree     one layer
//! vms/<n>/            a VM: upper/ and work/
//! tmp/<session>.…     half-made things
//! trash/<session>.…   things on the way out
//! caches/<hash>/      a directory that outlives VMs, made when first asked for
//! stat-cache/         what scans of host directories saw; can be removed at any time
//! layer-locks/<hash>  locked by whoever is making the layer of a diff id
//! reserve             nothing, to be given up when the disk is full
//! sessions/<n>.lock   locked by the process of the session; the lock dies with it
//! ```

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::error::{Context, StoreError};

/// Version of the directory's layout that this program reads and writes.
const FORMAT: u32 = 1;
const FORMAT_PREFIX: &str = "hm-vm store ";
const DIRECTORIES: [&str; 5] = ["layers", "vms", "tmp", "trash", "sessions"];

/// Paths of a store that exists and is safe to use.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    directory: OwnedFd,
    /// Names in `tmp` and `trash` are made unique by these. The session's number is not enough:
    /// that of a process which dies while it opens the store is given out once more.
    nonce: String,
    counter: AtomicU64,
}

impl Layout {
    /// Opens the directory, creating it where it does not exist or is empty.
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).context("finding", root)?;
        create_root(&root)?;
        check_root(&root)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&root, flags, Mode::empty()).context("opening", &root)?;
        let layout = Self {
            root,
            directory,
            nonce: nonce()?,
            counter: AtomicU64::new(0),
        };
        if !layout.check_format()? {
            layout.create()?;
        }
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The root, opened.
    pub(crate) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("store.db")
    }

    pub(crate) fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer(&self, layer: i64) -> PathBuf {
        self.root.join(format!("layers/{layer}"))
    }

    pub(crate) fn layer_tree(&self, layer: i64) -> PathBuf {
        self.root.join(format!("layers/{layer}/tree"))
    }

    pub(crate) fn vms(&self) -> PathBuf {
        self.root.join("vms")
    }

    pub(crate) fn vm(&self, vm: i64) -> PathBuf {
        self.root.join(format!("vms/{vm}"))
    }

    /// Directories that outlive VMs. Missing until the first is asked for.
    pub(crate) fn caches(&self) -> PathBuf {
        self.root.join("caches")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where scans of host directories remember what they saw.
    pub(crate) fn stat_cache(&self) -> PathBuf {
        self.root.join("stat-cache")
    }

    /// Locks of layers that are being made. Missing until the first is taken.
    pub(crate) fn layer_locks(&self) -> PathBuf {
        self.root.join("layer-locks")
    }

    pub(crate) fn sessions(&self) -> PathBuf {
        self.root.join("sessions")
    }

    pub(crate) fn session_lock(&self, session: i64) -> PathBuf {
        self.root.join(format!("sessions/{session}.lock"))
    }

    /// A path in `trash` that nothing else uses.
    pub(crate) fn new_trash(&self, session: i64) -> PathBuf {
        self.trash().join(self.unique_name(session))
    }

    /// A path in `tmp` that nothing else uses.
    pub(crate) fn new_tmp(&self, session: i64) -> PathBuf {
        self.tmp().join(self.unique_name(session))
    }

    fn unique_name(&self, session: i64) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{session}.{}.{number}", self.nonce)
    }

    /// The session that made a directory in `tmp` or `trash`; `None` for one that is no more.
    pub(crate) fn owner(&self, name: &str, own_session: i64) -> Option<i64> {
        let mut parts = name.split('.');
        let session = parts.next()?.parse().ok()?;
        (session != own_session || parts.next() == Some(&self.nonce)).then_some(session)
    }

    /// Holds back other processes that create or migrate the same store, until dropped.
    pub(crate) fn lock_for_setup(&self) -> Result<fs::File, StoreError> {
        let path = self.root.join("format");
        let file = fs::File::open(&path).context("opening", &path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).context("locking", &path)?;
        Ok(file)
    }

    /// Whether a format file of this version is there.
    fn check_format(&self) -> Result<bool, StoreError> {
        let path = self.root.join("format");
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).context("reading", &path),
        };
        let version = text
            .strip_prefix(FORMAT_PREFIX)
            .and_then(|rest| rest.trim_end().parse::<u32>().ok())
            .ok_or_else(|| {
                StoreError::bad_state(&path, "it is not the format file of an hm-vm store")
            })?;
        if version == FORMAT {
            return Ok(true);
        }
        Err(StoreError::bad_state(
            &self.root,
            format!(
                "it has store format {version}, this program knows {FORMAT}; use the program that \
                 made it, or another directory"
            ),
        ))
    }

    fn create(&self) -> Result<(), StoreError> {
        self.refuse_foreign_content()?;
        for name in DIRECTORIES {
            let path = self.root.join(name);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).context("creating", &path);
                }
                _ => {}
            }
        }
        // The format file comes last and whole: a store that has one is complete.
        let temporary = self.root.join(format!(".format-{}", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .context("creating", &temporary)?;
        file.write_all(format!("{FORMAT_PREFIX}{FORMAT}\n").as_bytes())
            .and_then(|()| file.sync_all())
            .context("writing", &temporary)?;
        let path = self.root.join("format");
        let linked = fs::hard_link(&temporary, &path);
        fs::remove_file(&temporary).context("removing", &temporary)?;
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.check_format().map(|_| ())
            }
            other => other.context("creating", &path),
        }
    }

    /// A directory with other people's files in it is not turned into a store.
    fn refuse_foreign_content(&self) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.root).context("listing", &self.root)? {
            let name = entry.context("listing", &self.root)?.file_name();
            let text = name.to_string_lossy();
            let ours = DIRECTORIES.contains(&text.as_ref())
                || text == "format"
                || text.starts_with(".format-")
                || text.starts_with("registry.db");
            if !ours {
                return Err(StoreError::bad_state(
                    &self.root,
                    format!("it is not an hm-vm store, and not empty: it contains {text:?}"),
                ));
            }
        }
        Ok(())
    }
}

fn nonce() -> Result<String, StoreError> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("reading", "/dev/urandom")?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

fn create_root(root: &Path) -> Result<(), StoreError> {
    if root.symlink_metadata().is_ok() {
        return Ok(());
    }
    if let Some(parent) = root.parent() {
        fs::create_dir_all(parent).context("creating", parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(root) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context("creating", root),
    }
}

/// Refuses a root through which somebody else could reach, or replace, what is in the store.
fn check_root(root: &Path) -> Result<(), StoreError> {
    let user = rustix::process::geteuid().as_raw();
    let link = root.symlink_metadata().context("examining", root)?;
    if link.is_symlink() && link.uid() != user && link.uid() != 0 {
        let reason = format!("it is a symbolic link made by user {}", link.uid());
        return Err(StoreError::bad_state(root, reason));
    }
    let found = root.metadata().context("examining", root)?;
    if !found.is_dir() {
        return Err(StoreError::bad_state(root, "it is not a directory"));
    }
    if found.uid() != user {
        let reason = format!(
            "it belongs to user {}, you are user {user}; give a directory of your own",
            found.uid()
        );
        return Err(StoreError::bad_state(root, reason));
    }
    if found.mode() & 0o022 != 0 {
        let reason = "other users may write to it; `chmod 700` it, if its content can be trusted";
        return Err(StoreError::bad_state(root, reason));
    }
    if found.mode() & 0o077 != 0 {
        // Layers keep set-user-id programs of images: nobody else may reach them.
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).context("closing", root)?;
    }
    Ok(())
}
