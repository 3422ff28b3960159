//! Where logs are, and what becomes of those of dead processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{MAGIC, MAX_KEY_BYTES};

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
    pub(super) fn create(&self, key: &str) -> io::Result<NewLog> {
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
            if file.metadata()?.nlink() == 0 {
                continue;
            }
            let mut log = NewLog { name, path, file };
            if let Err(error) = log.write_header(key) {
                drop(fs::remove_file(&log.path));
                return Err(error);
            }
            return Ok(log);
        }
    }

    /// Opens a stored log for reading, behind its header. A log whose writer has died, or is just
    /// about to rename it, is still in `tmp`.
    pub(super) fn open(&self, name: &str) -> io::Result<File> {
        let mut file = match File::open(self.path(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                match File::open(self.tmp_dir().join(name)) {
                    // It may have been renamed between the two.
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        File::open(self.path(name))?
                    }
                    file => file?,
                }
            }
            file => file?,
        };
        read_header(&mut file)?;
        Ok(file)
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
                Ok(key) => is_stored(&name, &key)?,
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

impl NewLog {
    fn write_header(&mut self, key: &str) -> io::Result<()> {
        // A key too long to be read back makes a log that is not completed after a crash.
        let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&length.to_le_bytes());
        header.extend_from_slice(key.as_bytes());
        self.file.write_all(&header)
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Reads the header and returns the key.
fn read_header(file: &mut File) -> io::Result<String> {
    let corrupt = || io::Error::new(ErrorKind::InvalidData, "not a log of this version");
    let mut start = [0u8; MAGIC.len() + 4];
    file.read_exact(&mut start)?;
    let (magic, length) = start.split_at(MAGIC.len());
    let length = <[u8; 4]>::try_from(length).map_err(|_| corrupt())?;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| corrupt())?;
    if magic != MAGIC || length > MAX_KEY_BYTES {
        return Err(corrupt());
    }
    let mut key = vec![0u8; length];
    file.read_exact(&mut key)?;
    String::from_utf8(key).map_err(|_| corrupt())
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
