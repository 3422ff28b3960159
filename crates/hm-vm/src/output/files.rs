//! Where logs are, and what becomes of those of dead processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{MAGIC, MAGIC_1, MAX_KEY_BYTES, MAX_TIME};

/// The directory of the logs of one registry. Made when the first log is.
#[derive(Clone, Debug)]
pub(crate) struct LogFiles {
    dir: PathBuf,
}

/// A log that is being written. Its file is locked as long as this lives.
#[derive(Debug)]
pub(super) struct NewLog {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl LogFiles {
    /// The logs of the registry at `registry`.
    pub(crate) fn beside(registry: &Path) -> Self {
        let mut dir = registry.as_os_str().to_owned();
        dir.push(".logs");
        Self { dir: dir.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn tmp_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Creates a log with its header, locked.
    pub(super) fn create(&self, key: &str, started: SystemTime) -> io::Result<NewLog> {
        let mut log = self.create_empty(key)?;
        if let Err(error) = write_header(&mut log.file, key, started) {
            drop(fs::remove_file(&log.path));
            return Err(error);
        }
        Ok(log)
    }

    fn create_empty(&self, key: &str) -> io::Result<NewLog> {
        let tmp = self.tmp_dir();
        loop {
            let name = new_name(key);
            let path = tmp.join(&name);
            let file = match create_new(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    fs::create_dir_all(&tmp)?;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            file.lock()?;
            // A collector may have come between the creation and the lock.
            if file.metadata()?.nlink() > 0 {
                return Ok(NewLog { name, path, file });
            }
        }
    }

    /// Makes a log of `key` of a file that is one already, by copying it.
    pub(super) fn copy_in(&self, key: &str, from: &Path) -> io::Result<NewLog> {
        let mut from = File::open(from)?;
        let mut log = self.create_empty(key)?;
        if let Err(error) = io::copy(&mut from, &mut log.file) {
            drop(fs::remove_file(&log.path));
            return Err(error);
        }
        Ok(log)
    }

    /// Shows a stored log at `path`, which must not exist: as a second name of the file, or as a copy of it.
    pub(crate) fn show(&self, name: &str, path: &Path) -> io::Result<()> {
        match self.any_place(name, |place| fs::hard_link(place, path)) {
            Ok(()) => Ok(()),
            Err(error) if cannot_link(&error) => {
                let mut from = self.any_place(name, |place| File::open(place))?;
                io::copy(&mut from, &mut create_new(path)?).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a stored log for reading.
    pub(crate) fn open(&self, name: &str) -> io::Result<File> {
        self.any_place(name, |place| File::open(place))
    }

    /// Tries the places where a stored log may be. One whose writer has died, or is just about to rename it,
    /// is still in `tmp`; it may be renamed between the first two looks.
    fn any_place<T>(
        &self,
        name: &str,
        mut attempt: impl FnMut(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let (place, tmp) = (self.path(name), self.tmp_dir().join(name));
        for place in [&place, &tmp] {
            match attempt(place) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => return done,
            }
        }
        attempt(&place)
    }

    /// Moves a log to its place, now that its row names it.
    pub(super) fn publish(&self, name: &str) -> io::Result<()> {
        fs::rename(self.tmp_dir().join(name), self.path(name))
    }

    /// Removes a log. Does nothing when it is gone.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        for path in [self.path(name), self.tmp_dir().join(name)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Goes through the logs whose writer has died: `is_stored(name, key)` tells whether the key's
    /// row names the log.
    pub(crate) fn collect_dead(
        &self,
        mut is_stored: impl FnMut(&str, &str) -> io::Result<bool>,
    ) -> io::Result<()> {
        let entries = match fs::read_dir(self.tmp_dir()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let mut file = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file?,
            };
            if file.try_lock().is_err() || file.metadata()?.nlink() == 0 {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // A header that cannot be read was never finished.
            let stored = match read_header(&mut file) {
                Ok(header) => is_stored(&name, &header.key)?,
                Err(_) => false,
            };
            if stored {
                self.publish(&name)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Creates a log of no registry at `path`, which must not exist, with its header, locked. Whoever
/// finds it there finds it so.
pub(super) fn create_at(path: &Path, started: SystemTime) -> io::Result<File> {
    let tmp = path.with_file_name(format!(".{}", new_name("")));
    let mut file = create_new(&tmp)?;
    let created = file
        .lock()
        .and_then(|()| write_header(&mut file, "", started))
        .and_then(|()| match fs::hard_link(&tmp, path) {
            Err(error) if cannot_link(&error) && !path.exists() => fs::rename(&tmp, path),
            linked => linked.and_then(|()| fs::remove_file(&tmp)),
        });
    if let Err(error) = created {
        drop(fs::remove_file(&tmp));
        return Err(error);
    }
    Ok(file)
}

fn write_header(file: &mut File, key: &str, started: SystemTime) -> io::Result<()> {
    // A key too long to be read back makes a log that cannot be read.
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = u64::try_from(started.as_millis()).unwrap_or(u64::MAX);
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&length.to_le_bytes());
    header.extend_from_slice(key.as_bytes());
    header.extend_from_slice(&started.to_le_bytes());
    file.write_all(&header)
}

/// Whether another attempt to link would fail as well, but a copy may succeed: another file system, too many
/// links, or a file system without any.
pub(super) fn cannot_link(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::NotADirectory
    )
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// What is before the records of a log.
pub(super) struct Header {
    pub(super) version: u8,
    pub(super) key: String,
    /// Since version 2.
    pub(super) started: Option<SystemTime>,
}

/// Reads the header.
pub(super) fn read_header(file: &mut File) -> io::Result<Header> {
    let corrupt = || io::Error::new(ErrorKind::InvalidData, "not a log of this version");
    let mut start = [0u8; MAGIC.len() + 4];
    file.read_exact(&mut start)?;
    let (magic, length) = start.split_at(MAGIC.len());
    let length = <[u8; 4]>::try_from(length).map_err(|_| corrupt())?;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| corrupt())?;
    let version = match magic {
        magic if magic == MAGIC_1 => 1,
        magic if magic == MAGIC => 2,
        _ => return Err(corrupt()),
    };
    if length > MAX_KEY_BYTES {
        return Err(corrupt());
    }
    let mut key = vec![0u8; length];
    file.read_exact(&mut key)?;
    let key = String::from_utf8(key).map_err(|_| corrupt())?;
    let started = match version {
        1 => None,
        _ => {
            let mut millis = [0u8; 8];
            file.read_exact(&mut millis)?;
            let since = Duration::from_millis(u64::from_le_bytes(millis));
            if since > MAX_TIME {
                return Err(corrupt());
            }
            Some(UNIX_EPOCH + since)
        }
    };
    Ok(Header {
        version,
        key,
        started,
    })
}

/// A name that nobody else takes: the beginning of the key's hash, so that a person can find it,
/// and a part that differs for every log.
fn new_name(key: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let unique = format!(
        "{} {} {}",
        std::process::id(),
        now.as_nanos(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    );
    let hash = blake3::hash(key.as_bytes()).to_hex();
    let unique = blake3::hash(unique.as_bytes()).to_hex();
    format!("{}.{}", &hash[..32], &unique[..16])
}
