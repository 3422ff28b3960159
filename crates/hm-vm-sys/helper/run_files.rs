//! What is made ready for a command, and undone after it: secrets, a script that is too long for an argument, the owners of
//! caches.
//!
//! Secrets are written to files in memory of the host's, which the container has mounted: each at its place, where it cannot be
//! written to, and all of them in [`SECRETS`], where only root gets in. So they have the kernel's own protection, and no
//! snapshot can have them.

use core::ffi::CStr;

use crate::calls::{self, Result};
use crate::frames::Fields;
use crate::numbers::*;
use crate::removal::{Name, empty_directory};

/// Below `/dev`.
const SECRETS: &CStr = c"hm-vm-secrets";
const SCRIPTS: &CStr = c"hm-vm-run";
const SCRIPT: &CStr = c"script";

/// One secret, or the script, that could not be written.
pub struct Refused {
    pub index: usize,
    pub errno: i32,
}

/// What was made. `remove` takes it away.
pub struct RunFiles<'a> {
    fields: Fields<'a>,
    /// `/dev`, as it was before any command ran.
    devices: i32,
    /// Where the script is.
    directory: Option<i32>,
}

impl<'a> RunFiles<'a> {
    /// Nothing yet.
    pub fn new(fields: Fields<'a>, devices: i32) -> Self {
        Self {
            fields,
            devices,
            directory: None,
        }
    }

    /// Makes all of them, for `owner` to read.
    pub fn make(&mut self, owner: (u32, u32)) -> core::result::Result<(), Refused> {
        let fields = self.fields;
        if let Some(script) = fields.tagged(b'x').next() {
            let made = self.make_script(script.bytes(), owner);
            made.map_err(|errno| Refused {
                index: usize::MAX,
                errno,
            })?;
        }
        for (index, secret) in fields.tagged(b's').enumerate() {
            let written = write_secret(self.devices, index, secret.bytes(), owner);
            written.map_err(|errno| Refused { index, errno })?;
        }
        for cache in fields.tagged(b'o').filter(|_| owner.0 != 0) {
            // One that cannot be given is seen by the command, if that needs it.
            if let Ok(directory) = calls::open(cache.text(), O_DIRECTORY) {
                let _ = calls::change_owner(directory, owner.0, owner.1);
                calls::close(directory);
            }
        }
        Ok(())
    }

    fn make_script(&mut self, content: &[u8], owner: (u32, u32)) -> Result<()> {
        let directory = self.make_directory()?;
        self.directory = Some(directory);
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
        let file = calls::open_at(directory, SCRIPT, flags, 0o400)?;
        fill(file, content, owner)
    }

    /// An empty directory of root's. What a command may have left under its name goes.
    fn make_directory(&self) -> Result<i32> {
        let flags = O_DIRECTORY | O_NOFOLLOW;
        if let Ok(left) = calls::open_at(self.devices, SCRIPTS, flags, 0) {
            empty_directory(left);
            calls::close(left);
        }
        let _ = calls::unlink_at(self.devices, SCRIPTS, AT_REMOVEDIR);
        let _ = calls::unlink_at(self.devices, SCRIPTS, 0);
        calls::make_directory_at(self.devices, SCRIPTS, 0o711)?;
        calls::open_at(self.devices, SCRIPTS, flags, 0)
    }

    /// Takes everything away. No other process may be alive.
    pub fn remove(self) {
        wipe_secrets(self.devices);
        if let Some(directory) = self.directory {
            empty_directory(directory);
            calls::close(directory);
            let _ = calls::unlink_at(self.devices, SCRIPTS, AT_REMOVEDIR);
        }
    }
}

fn write_secret(devices: i32, index: usize, content: &[u8], owner: (u32, u32)) -> Result<()> {
    fill(open_secret(devices, index)?, content, owner)
}

/// Opens an empty file: it has no content any more.
fn open_secret(devices: i32, index: usize) -> Result<i32> {
    let directory = calls::open_at(devices, SECRETS, O_DIRECTORY | O_NOFOLLOW, 0)?;
    let mut name = Name::new(b"").ok_or(EINVAL)?;
    name.add_number(index);
    let flags = O_WRONLY | O_TRUNC | O_NOFOLLOW;
    let opened = calls::open_at(directory, name.text(), flags, 0);
    calls::close(directory);
    opened
}

/// Nobody reads them again, whatever becomes of the files.
pub fn wipe_secrets(devices: i32) {
    let mut index = 0;
    while let Ok(file) = open_secret(devices, index) {
        calls::close(file);
        index += 1;
    }
}

/// Writes a file, gives it away, and closes it.
fn fill(file: i32, content: &[u8], owner: (u32, u32)) -> Result<()> {
    let written = write_all(file, content);
    let owned = calls::change_owner(file, owner.0, owner.1);
    calls::close(file);
    written?;
    owned.map(|_| ())
}

/// Writes all of it.
pub fn write_all(file: i32, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match calls::write(file, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Makes a directory, and those on the way to it. What is there already is fine.
pub fn make_directories(path: &[u8]) -> Result<()> {
    const LONGEST: usize = 4096;
    let mut buffer = [0u8; LONGEST];
    if path.len() >= LONGEST {
        return Err(EINVAL);
    }
    for at in 1..=path.len() {
        if at < path.len() && path[at] != b'/' {
            continue;
        }
        buffer[..at].copy_from_slice(&path[..at]);
        let prefix = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
        match calls::make_directory_at(AT_FDCWD, prefix, 0o755) {
            Ok(_) | Err(EEXIST | EISDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
