//! File systems that a non-recursive view of the host's root lacks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::{HostError, private};

/// A separate mount of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submount {
    /// Where it is mounted.
    pub path: PathBuf,
    /// File system type, such as `ext4`.
    pub file_system: String,
    /// Whether it is mounted on a directory, rather than on a file.
    pub is_directory: bool,
}

/// Where software and its state are.
const PLACES: &[&str] = &["/etc", "/nix", "/opt", "/usr", "/var"];

/// Further places that have nothing to show: state whose directories alone are kept.
const EMPTIED: &[&str] = &["/var/log", "/var/spool"];

/// Whether a path is hidden in the `host` image, or made by the sandbox itself.
fn is_not_shown(path: &Path) -> bool {
    let emptied = EMPTIED.iter().copied();
    private::hidden_places()
        .chain(emptied)
        .any(|place| path.starts_with(place))
}

/// File systems of the kernel's own: state of this machine, not software.
const KERNELS_OWN: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "cgroup",
    "cgroup2",
    "debugfs",
    "devpts",
    "devtmpfs",
    "mqueue",
    "nsfs",
    "proc",
    "rpc_pipefs",
    "sysfs",
    "tracefs",
];

/// Separate mounts at or below `/usr`, `/opt`, `/nix`, `/etc` and `/var` that hold software or its
/// state, parents first: an overlay with the host's root as a lower layer shows empty directories
/// there. Mounts that the `host` image hides anyway, and the kernel's own file systems, are left
/// out. The store may be on one of them: whoever binds them keeps it hidden.
///
/// # Errors
///
/// A failure to read `/proc/self/mountinfo`.
pub fn submounts() -> Result<Vec<Submount>, HostError> {
    let path = Path::new("/proc/self/mountinfo");
    let table = std::fs::read(path).map_err(|error| HostError::file("reading", path, error))?;
    let mut mounts = parse(&table);
    for mount in &mut mounts {
        mount.is_directory = mount.path.is_dir();
    }
    mounts.retain(|mount| mount.path.symlink_metadata().is_ok());
    Ok(mounts)
}

/// Takes the mounts of interest out of a table; of several at one place, the last.
fn parse(table: &[u8]) -> Vec<Submount> {
    let mut mounts = BTreeMap::new();
    for line in table.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b' ');
        let Some(path) = fields.nth(4) else { continue };
        let Some(file_system) = fields.skip_while(|field| field != b"-").nth(1) else {
            continue;
        };
        let path = PathBuf::from(OsString::from_vec(unescape(path)));
        let file_system = String::from_utf8_lossy(file_system).into_owned();
        let is_of_interest = PLACES.iter().any(|place| path.starts_with(place));
        let of_kernel = KERNELS_OWN.contains(&file_system.as_str());
        if is_of_interest && !is_not_shown(&path) && !of_kernel {
            let mount = Submount {
                path: path.clone(),
                file_system,
                is_directory: true,
            };
            mounts.insert(path, mount);
        }
    }
    mounts.into_values().collect()
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let code = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &rest[4..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_software_are_found() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 22 8:2 / /usr ro,relatime shared:1 - squashfs /dev/sda2 ro\n\
            31 22 8:3 / /opt/my\\040tools rw shared:2 master:3 - ext4 /dev/sda3 rw\n\
            32 22 0:5 / /var/lib/docker/overlay2/x rw - overlay overlay rw\n\
            33 22 0:6 / /var/lib/nfs/rpc_pipefs rw - rpc_pipefs sunrpc rw\n\
            34 22 0:7 / /etc/hosts rw - ext4 /dev/sda1 rw\n\
            37 22 8:5 / /var/lib/mysql rw - ext4 /dev/sda5 rw\n\
            38 22 8:6 / /etc/kubernetes/pki rw - tmpfs tmpfs rw\n\
            35 22 0:8 / /usrlocal rw - ext4 /dev/sda1 rw\n\
            36 30 8:4 / /usr ro - erofs /dev/sda4 ro\n\
            bad line\n";
        let mounts = parse(table);
        let found: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.path.to_str().unwrap(), mount.file_system.as_str()))
            .collect();
        assert_eq!(found, [("/opt/my tools", "ext4"), ("/usr", "erofs")]);
    }

    #[test]
    fn this_machine_can_be_read() {
        let mounts = submounts().unwrap();
        assert!(mounts.iter().all(|mount| mount.path.is_absolute()));
    }
}
