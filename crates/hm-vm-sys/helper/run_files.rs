//! Files that exist while a command runs: secrets, and a script that is too long for an argument. They are in memory, so
//! that no snapshot can have them; where a secret is asked for, there is a symbolic link.

use core::ffi::CStr;

use crate::calls::{self, Result};
use crate::frames::{Field, Fields};
use crate::numbers::*;
use crate::removal::{Name, empty_directory};

const DIRECTORY: &CStr = c"hm-vm-run";
const PATH: &[u8] = b"/dev/hm-vm-run/";
const SCRIPT: &CStr = c"script";

/// The file or the link of one secret that could not be made.
pub struct Refused {
    pub index: usize,
    pub errno: i32,
}

/// What was made. `remove` takes it away.
pub struct RunFiles<'a> {
    fields: Fields<'a>,
    /// `/dev`, as it was before any command ran.
    devices: i32,
    directory: Option<i32>,
    links: usize,
}

impl<'a> RunFiles<'a> {
    /// Nothing yet.
    pub fn new(fields: Fields<'a>, devices: i32) -> Self {
        Self {
            fields,
            devices,
            directory: None,
            links: 0,
        }
    }

    /// Makes all of them, for `owner` to read.
    pub fn make(&mut self, owner: (u32, u32)) -> core::result::Result<(), Refused> {
        let fields = self.fields;
        if let Some(script) = fields.tagged(b'x').next() {
            let made = self.make_file(SCRIPT, script.bytes(), owner);
            made.map_err(|errno| Refused {
                index: usize::MAX,
                errno,
            })?;
        }
        for (index, secret) in fields.tagged(b's').enumerate() {
            let made = self.make_secret(index, &secret, owner);
            made.map_err(|errno| Refused { index, errno })?;
            self.links += 1;
        }
        Ok(())
    }

    fn make_secret(&mut self, index: usize, secret: &Field<'_>, owner: (u32, u32)) -> Result<()> {
        let target = secret.text();
        let content = secret.bytes().get(target.count_bytes() + 1..);
        let mut name = Name::new(b"").ok_or(EINVAL)?;
        name.add_number(index);
        self.make_file(name.text(), content.unwrap_or_default(), owner)?;
        make_directories(target.to_bytes(), false)?;
        calls::symbolic_link(place(index).ok_or(EINVAL)?.text(), target)?;
        Ok(())
    }

    fn make_file(&mut self, name: &CStr, content: &[u8], owner: (u32, u32)) -> Result<()> {
        let directory = match self.directory {
            Some(directory) => directory,
            None => self.make_directory()?,
        };
        self.directory = Some(directory);
        let file = calls::open_at(
            directory,
            name,
            O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW,
            0o400,
        )?;
        let written = write_all(file, content);
        let owned = calls::change_owner(file, owner.0, owner.1);
        calls::close(file);
        written?;
        owned.map(|_| ())
    }

    /// An empty directory of root's. What a command may have left under its name goes.
    fn make_directory(&self) -> Result<i32> {
        let flags = O_DIRECTORY | O_NOFOLLOW;
        if let Ok(left) = calls::open_at(self.devices, DIRECTORY, flags, 0) {
            empty_directory(left);
            calls::close(left);
        }
        let _ = calls::unlink_at(self.devices, DIRECTORY, AT_REMOVEDIR);
        let _ = calls::unlink_at(self.devices, DIRECTORY, 0);
        calls::make_directory_at(self.devices, DIRECTORY, 0o711)?;
        calls::open_at(self.devices, DIRECTORY, flags, 0)
    }

    /// Takes everything away. No other process may be alive.
    pub fn remove(self) {
        let secrets = self.fields.tagged(b's').take(self.links);
        for (index, secret) in secrets.enumerate() {
            let mut content = [0u8; 64];
            let Some(expected) = place(index) else {
                continue;
            };
            let length = calls::read_link(secret.text(), &mut content);
            let is_ours =
                length.is_ok_and(|length| content[..length] == *expected.text().to_bytes());
            if is_ours {
                let _ = calls::unlink_at(AT_FDCWD, secret.text(), 0);
            }
        }
        if let Some(directory) = self.directory {
            empty_directory(directory);
            calls::close(directory);
            let _ = calls::unlink_at(self.devices, DIRECTORY, AT_REMOVEDIR);
        }
    }
}

/// Where the link of a secret leads.
fn place(index: usize) -> Option<Name> {
    let mut name = Name::new(PATH)?;
    name.add_number(index);
    Some(name)
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

/// Makes the directories on the way to `path`, and with `last` itself. What is there already is fine.
pub fn make_directories(path: &[u8], last: bool) -> Result<()> {
    const LONGEST: usize = 4096;
    let mut buffer = [0u8; LONGEST];
    if path.len() >= LONGEST {
        return Err(EINVAL);
    }
    for at in 1..=path.len() {
        let ends = at == path.len();
        if (ends && !last) || (!ends && path[at] != b'/') {
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
