//! A quick digest of the software installed on this machine.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::HostError;

/// Read whole.
const CONTENTS: &[&str] = &["/etc/os-release", "/usr/lib/os-release"];

/// Databases of package managers, and what installing a program or library touches.
const FILES: &[&str] = &[
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/lib/apk/db/installed",
    "/run/current-system",
    "/usr/lib/sysimage/rpm/Packages",
    "/usr/lib/sysimage/rpm/Packages.db",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite-wal",
    "/var/lib/dpkg/status",
    "/var/lib/pacman/local",
    "/var/lib/rpm/Packages",
    "/var/lib/rpm/Packages.db",
    "/var/lib/rpm/rpmdb.sqlite",
    "/var/lib/rpm/rpmdb.sqlite-wal",
    "/nix/var/nix/profiles",
    "/var/lib/flatpak",
];

/// Directories of programs and libraries.
const DIRECTORIES: &[&str] = &[
    "/bin",
    "/lib",
    "/lib64",
    "/opt",
    "/sbin",
    "/usr/bin",
    "/usr/include",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/sbin",
    "/usr/share",
    "/usr/src",
];

/// Directories that are looked at together with the directories in them.
const PARENTS: &[&str] = &[
    "/opt",
    "/usr/lib",
    "/usr/local",
    "/usr/local/lib",
    "/usr/local/share",
];

/// Digest, in hex, that stands for the installed software of this machine. Takes well under five
/// milliseconds.
///
/// A change is seen when it
///
/// * changes `os-release`,
/// * replaces or writes the database of dpkg, rpm, apk, pacman or flatpak, the linker's cache, a
///   Nix profile or the NixOS system, or changes `/etc/alternatives`;
/// * adds, removes, renames or replaces an entry of a directory of programs or libraries of the
///   distribution, of a directory in `/usr/lib`, of `/opt`, `/usr/local`, `/usr/local/lib`,
///   `/usr/local/share`, or of a directory in one of these.
///
/// It is not seen when it writes to a file in place, or changes something deeper or elsewhere, such
/// as configuration in `/etc`. Inode numbers and times enter: two machines never have the same.
///
/// # Errors
///
/// A failure to look other than that something is not there or not allowed.
pub fn fingerprint() -> Result<String, HostError> {
    let mut digest = Fingerprint(blake3::Hasher::new());
    for path in CONTENTS {
        digest.content(Path::new(path))?;
    }
    for path in FILES.iter().chain(DIRECTORIES) {
        digest.stat(Path::new(path))?;
    }
    for path in PARENTS {
        digest.with_children(Path::new(path))?;
    }
    Ok(digest.0.finalize().to_hex().to_string())
}

struct Fingerprint(blake3::Hasher);

impl Fingerprint {
    fn put(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn content(&mut self, path: &Path) -> Result<(), HostError> {
        let content = unless_absent(std::fs::read(path))
            .map_err(|error| HostError::file("reading", path, error))?;
        self.put(&content.unwrap_or_default());
        Ok(())
    }

    /// Enters what is at `path`, links followed. Nothing there is something else than before.
    fn stat(&mut self, path: &Path) -> Result<(), HostError> {
        let stat = unless_absent(std::fs::metadata(path))
            .map_err(|error| HostError::file("looking at", path, error))?;
        self.put(path.as_os_str().as_encoded_bytes());
        let Some(stat) = stat else {
            self.put(b"absent");
            return Ok(());
        };
        for number in [stat.mtime(), stat.mtime_nsec()] {
            self.put(&number.to_le_bytes());
        }
        for number in [stat.dev(), stat.ino(), stat.size(), u64::from(stat.mode())] {
            self.put(&number.to_le_bytes());
        }
        Ok(())
    }

    fn with_children(&mut self, path: &Path) -> Result<(), HostError> {
        self.stat(path)?;
        let failed = |error| HostError::file("reading", path, error);
        let Some(entries) = unless_absent(std::fs::read_dir(path)).map_err(failed)? else {
            return Ok(());
        };
        let mut names: Vec<OsString> = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                names.push(entry.file_name());
            }
        }
        names.sort_unstable();
        let children = names.iter().map(|name| path.join(name));
        children
            .collect::<Vec<PathBuf>>()
            .iter()
            .try_for_each(|child| self.stat(child))
    }
}

/// `None` for what is not there, or not to be seen.
fn unless_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &Path) -> String {
        let mut digest = Fingerprint(blake3::Hasher::new());
        digest.with_children(path).unwrap();
        digest.0.finalize().to_hex().to_string()
    }

    #[test]
    fn it_stays_the_same_while_nothing_changes() {
        let first = fingerprint().unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(first, fingerprint().unwrap());
    }

    #[test]
    fn an_entry_more_in_a_child_is_seen() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("child")).unwrap();
        let before = of(root.path());
        assert_eq!(before, of(root.path()));
        std::fs::create_dir(root.path().join("child/new")).unwrap();
        let after = of(root.path());
        assert_ne!(before, after);
        std::fs::remove_dir_all(root.path().join("child")).unwrap();
        assert_ne!(after, of(root.path()));
    }
}
