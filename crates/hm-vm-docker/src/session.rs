//! Who uses a daemon: an owner that lasts, and a session that ends.
//!
//! ```text
//! STATE/owner                 16 hexadecimal digits, written once
//! STATE/sessions/ID.lock      locked (flock) while the session lives
//! STATE/KIND-HASH/            what is known of this owner's things in one daemon
//! ```
//!
//! The lock dies with its process, by whatever end. Who can take the lock of another session knows that it is dead. It is not
//! kept per daemon: one daemon may be reached in several ways, and a session must be seen alive by all of them.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::endpoint::Endpoint;
use crate::engine::{Engine, EngineKind};
use crate::objects::{Identity, nonce};

/// Digits of an owner and of a session.
const DIGITS: usize = 16;

/// One opened backend.
#[derive(Debug)]
pub(crate) struct Session {
    identity: Identity,
    directory: PathBuf,
    sessions: Sessions,
    /// Locked while the session lives.
    _lock: File,
}

impl Session {
    /// Begins a session of the owner that `state` names.
    ///
    /// # Errors
    ///
    /// `state` cannot be made or written, belongs to another user, or is a symbolic link.
    pub(crate) fn open(state: Option<&Path>, engine: &Engine) -> Result<Self> {
        Self::begin(state, engine.info().kind, engine.endpoint())
    }

    fn begin(state: Option<&Path>, kind: EngineKind, endpoint: &Endpoint) -> Result<Self> {
        let state = match state {
            Some(state) => state.to_owned(),
            None => standard_place(crate::environment::variable)?,
        };
        let state = std::path::absolute(&state)
            .with_context(|| format!("finding the directory {}", state.display()))?;
        own_directory(&state)?;
        let owner = owner(&state)?;
        let sessions = Sessions::new(&state)?;
        let directory = state.join(daemon_name(kind, endpoint));
        own_directory(&directory)?;
        let session = nonce()[..DIGITS].to_owned();
        let lock = sessions.begin(&session)?;
        Ok(Self {
            identity: Identity { owner, session },
            directory,
            sessions,
            _lock: lock,
        })
    }

    /// Who this is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Directory for files about this owner's things in this daemon.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// All sessions of the owner.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Under the lock still. What the session could not remove in time is reaped all the same: no file, no session.
        let _ = fs::remove_file(self.sessions.path(&self.identity.session));
    }
}

/// The sessions of an owner.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    directory: PathBuf,
}

/// A session that is dead, held so that nobody else takes it over at the same time.
#[derive(Debug)]
pub(crate) struct DeadSession {
    /// Its lock file. `None` when that was gone already.
    held: Option<(File, PathBuf)>,
}

impl Sessions {
    fn new(state: &Path) -> Result<Self> {
        let directory = state.join("sessions");
        own_directory(&directory)?;
        Ok(Self { directory })
    }

    fn path(&self, session: &str) -> PathBuf {
        self.directory.join(format!("{session}.lock"))
    }

    /// Locks a new file, and only then gives it its name: nobody sees it without its lock.
    fn begin(&self, session: &str) -> Result<File> {
        let path = self.path(session);
        let (file, unnamed) = new_file(&self.directory)?;
        let made = flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(std::io::Error::from)
            .and_then(|()| fs::rename(&unnamed, &path));
        if let Err(error) = made {
            let _ = fs::remove_file(&unnamed);
            return Err(error).with_context(|| format!("making {}", path.display()));
        }
        Ok(file)
    }

    /// Takes a dead session over. `None` when it lives, or another process takes it over now; in doubt it lives.
    pub(crate) fn take(&self, session: &str) -> Option<DeadSession> {
        if !is_id(session) {
            // Not one of ours, whoever wrote it.
            return None;
        }
        let path = self.path(session);
        let opened = rustix::fs::open(
            &path,
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        );
        match opened {
            Ok(file) => {
                flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
                Some(DeadSession {
                    held: Some((file.into(), path)),
                })
            }
            Err(rustix::io::Errno::NOENT) => Some(DeadSession { held: None }),
            Err(_) => None,
        }
    }

    /// The sessions that have a file, dead or alive.
    pub(crate) fn known(&self) -> Result<Vec<String>> {
        let reading = || format!("reading {}", self.directory.display());
        let mut known = Vec::new();
        for entry in fs::read_dir(&self.directory).with_context(reading)? {
            let name = entry.with_context(reading)?.file_name();
            let session = name.to_str().and_then(|name| name.strip_suffix(".lock"));
            known.extend(session.filter(|session| is_id(session)).map(str::to_owned));
        }
        Ok(known)
    }
}

impl DeadSession {
    /// Forgets the session: nothing of it is left in any daemon.
    pub(crate) fn forget(self) {
        if let Some((_, path)) = &self.held {
            let _ = fs::remove_file(path);
        }
    }
}

fn is_id(text: &str) -> bool {
    text.len() == DIGITS
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `$XDG_DATA_HOME/hm-vm/docker` or `~/.local/share/hm-vm/docker`.
fn standard_place(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let directory = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let data = directory("XDG_DATA_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".local/share")));
    let data = data.context(
        "there is no place for the state of the Docker backend: neither XDG_DATA_HOME nor HOME is set to an absolute path",
    )?;
    Ok(data.join("hm-vm/docker"))
}

/// Makes a directory of this user's alone, with what is above it, or looks whether it is one.
fn own_directory(path: &Path) -> Result<()> {
    let shown = path.display();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("making the directory {shown}"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(opened) => File::from(opened),
        // What a symbolic link is with both flags.
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            bail!("{shown} is a symbolic link; name the directory itself")
        }
        Err(error) => return Err(error).with_context(|| format!("opening {shown}")),
    };
    let found = opened
        .metadata()
        .with_context(|| format!("looking at {shown}"))?;
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        bail!(
            "{shown} belongs to user {}, not to {user}; use another directory",
            found.uid()
        );
    }
    if found.mode() & 0o077 != 0 {
        opened
            .set_permissions(Permissions::from_mode(0o700))
            .with_context(|| format!("closing {shown} to other users"))?;
    }
    Ok(())
}

/// A new file without its name yet.
fn new_file(directory: &Path) -> Result<(File, PathBuf)> {
    let path = directory.join(format!(".{}", nonce()));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        .with_context(|| format!("making {}", path.display()))?;
    Ok((file.into(), path))
}

/// The owner that a state directory names; a new one where there is none yet. Of several processes that ask first, all
/// get the same.
fn owner(state: &Path) -> Result<String> {
    let path = state.join("owner");
    if let Some(owner) = read_owner(&path)? {
        return Ok(owner);
    }
    let making = || format!("making {}", path.display());
    let (mut file, unnamed) = new_file(state)?;
    let written = writeln!(file, "{}", &nonce()[..DIGITS]).and_then(|()| file.sync_all());
    // A link, not a rename: the first one stays.
    let linked = written.and_then(|()| match fs::hard_link(&unnamed, &path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let _ = fs::remove_file(&unnamed);
    linked.with_context(making)?;
    read_owner(&path)?.with_context(making)
}

fn read_owner(path: &Path) -> Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let reading = || format!("reading {}", path.display());
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error).with_context(reading),
    };
    let mut text = String::new();
    file.take(64)
        .read_to_string(&mut text)
        .with_context(reading)?;
    let owner = text.trim_end();
    if !is_id(owner) {
        bail!(
            "{} is not what this program has written; remove it, and what it named in the daemon is nobody's",
            path.display()
        );
    }
    Ok(Some(owner.to_owned()))
}

/// Name of the directory for one daemon.
fn daemon_name(kind: EngineKind, endpoint: &Endpoint) -> String {
    let endpoint = match endpoint {
        // One socket has many names: `/var/run` is `/run` mostly.
        Endpoint::Unix(socket) => {
            Endpoint::Unix(fs::canonicalize(socket).unwrap_or_else(|_| socket.clone()))
        }
        other => other.clone(),
    };
    let hash = blake3::hash(endpoint.to_string().as_bytes()).to_hex();
    format!("{}-{}", kind.name(), &hash[..16])
}

#[cfg(test)]
mod tests;
