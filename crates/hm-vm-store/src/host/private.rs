//! What of the host is not shown.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{HostError, HostMaskOptions};

/// How a path is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mask {
    /// By an empty directory, with the host's mode or another.
    Directory { mode: Option<u32> },
    /// By a directory with empty directories of the same names in it.
    DirectoryWithSkeleton,
    /// By an empty file with the host's mode and owner.
    EmptyFile,
    /// By an empty file that everybody can read; made even where the host has none.
    BlankFile,
    /// By nothing: the path does not exist.
    Whiteout,
}

/// State of this machine and of services on it.
const STATE: &[&str] = &[
    "/dev",
    "/home",
    "/lost+found",
    "/media",
    "/mnt",
    "/proc",
    "/root",
    "/run",
    "/srv",
    "/sys",
    "/tmp",
    "/var/backups",
    "/var/crash",
    "/var/lib/cloud",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/incus",
    "/var/lib/kubelet",
    "/var/lib/libvirt",
    "/var/lib/lxc",
    "/var/lib/lxd",
    "/var/lib/machines",
    "/var/lib/mysql",
    "/var/lib/NetworkManager",
    "/var/lib/postgresql",
    "/var/lib/private",
    "/var/lib/rancher",
    "/var/lib/redis",
    "/var/lib/samba",
    "/var/lib/systemd/coredump",
    "/var/mail",
    "/var/run",
    "/var/spool/cron",
    "/var/spool/mail",
    "/var/tmp",
];

/// Secrets, in case their modes are wider than they should be.
const SECRETS: &[&str] = &[
    "/etc/NetworkManager/system-connections",
    "/etc/apt/auth.conf",
    "/etc/apt/auth.conf.d",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/krb5.keytab",
    "/etc/kubernetes",
    "/etc/letsencrypt",
    "/etc/netplan",
    "/etc/openvpn",
    "/etc/ppp",
    "/etc/rancher",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/ssl/private",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/wireguard",
    "/etc/wpa_supplicant",
];

/// Files that the VM gets its own of.
const OWN: &[&str] = &["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Places that are hidden whatever is there, or that the VM gets its own of.
pub(super) fn hidden_places() -> impl Iterator<Item = &'static str> {
    STATE.iter().chain(SECRETS).chain(OWN).copied()
}

/// How deep `/var` is searched for what others may not read.
const VAR_DEPTH: usize = 3;

/// Looks at the host, and says what is to be hidden and how.
pub(super) fn plan(options: &HostMaskOptions) -> Result<BTreeMap<PathBuf, Mask>, HostError> {
    let mut masks = BTreeMap::new();
    for path in STATE.iter().chain(SECRETS) {
        hide(&mut masks, Path::new(path));
    }
    hide(&mut masks, &options.store_root);
    options.extra.iter().for_each(|path| hide(&mut masks, path));
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    homes(&users).for_each(|home| hide(&mut masks, home));
    for (path, mode) in [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/root", 0o700)] {
        if let Some(mask) = masks.get_mut(Path::new(path)) {
            *mask = Mask::Directory { mode: Some(mode) };
        }
    }
    hide_private(&mut masks, Path::new("/"), 0)?;
    hide_private(&mut masks, Path::new("/etc"), usize::MAX)?;
    hide_private(&mut masks, Path::new("/var"), VAR_DEPTH)?;
    hide_host_keys(&mut masks);
    if Path::new("/var/log").is_dir() {
        masks.insert("/var/log".into(), Mask::DirectoryWithSkeleton);
    }
    for path in OWN {
        masks.insert(path.into(), Mask::BlankFile);
    }
    Ok(masks)
}

/// Hides what is at `path`, or what it leads to.
fn hide(masks: &mut BTreeMap<PathBuf, Mask>, path: &Path) {
    let Ok(real) = path.canonicalize() else {
        return;
    };
    let Ok(stat) = real.symlink_metadata() else {
        return;
    };
    if real != Path::new("/") {
        masks.insert(real, mask_for(&stat));
    }
}

fn mask_for(stat: &fs::Metadata) -> Mask {
    if stat.is_dir() {
        Mask::Directory { mode: None }
    } else if stat.is_file() {
        Mask::EmptyFile
    } else {
        Mask::Whiteout
    }
}

/// Home directories of people, as far as they are not plainly the system's.
fn homes(users: &str) -> impl Iterator<Item = &Path> {
    const PEOPLE: u32 = 1000;
    const NOBODY: u32 = 65534;
    const SYSTEM: &[&str] = &["/bin", "/etc", "/lib", "/nix", "/opt", "/sbin", "/usr"];
    users.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let uid: u32 = fields.next()?.parse().ok()?;
        let home = Path::new(fields.nth(2)?);
        let person = uid == 0 || (uid >= PEOPLE && uid != NOBODY);
        let system = SYSTEM.iter().any(|path| home.starts_with(path));
        (person && home.is_absolute() && !system && home != Path::new("/var")).then_some(home)
    })
}

/// Hides what others may not read, in a directory and `depth` levels below.
fn hide_private(
    masks: &mut BTreeMap<PathBuf, Mask>,
    directory: &Path,
    depth: usize,
) -> Result<(), HostError> {
    let entries = match fs::read_dir(directory) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(());
        }
        entries => entries.map_err(|error| HostError::file("reading", directory, error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| HostError::file("reading", directory, error))?;
        let path = entry.path();
        let Ok(stat) = entry.metadata() else {
            // It went away.
            continue;
        };
        if stat.is_symlink() || masks.contains_key(&path) {
            continue;
        }
        let needed = if stat.is_dir() { 0o005 } else { 0o004 };
        if stat.mode() & needed != needed {
            masks.insert(path, mask_for(&stat));
        } else if stat.is_dir() && depth > 0 {
            hide_private(masks, &path, depth - 1)?;
        }
    }
    Ok(())
}

/// The machine's own keys do not exist, so that a server in the VM makes its own.
fn hide_host_keys(masks: &mut BTreeMap<PathBuf, Mask>) {
    let Ok(entries) = fs::read_dir("/etc/ssh") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b"ssh_host_") && name.ends_with(b"_key") {
            masks.insert(entry.path(), Mask::Whiteout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_those_of_people() {
        let users = "root:x:0:0:root:/root:/bin/sh\n\
            daemon:x:1:1::/usr/sbin:/bin/sh\n\
            ann:x:1000:1000::/data/ann:/bin/sh\n\
            sys:x:1001:1001::/opt/sys:/bin/sh\n\
            nobody:x:65534:65534::/nonexistent:/bin/sh\n\
            broken line\n";
        let found: Vec<_> = homes(users).collect();
        assert_eq!(found, [Path::new("/root"), Path::new("/data/ann")]);
    }

    #[test]
    fn what_others_may_not_read_is_hidden() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str, mode: u32| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        make("open/readable", 0o644);
        make("open/secret", 0o640);
        make("closed/readable", 0o644);
        let closed = root.path().join("closed");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o711)).unwrap();
        let mut masks = BTreeMap::new();
        hide_private(&mut masks, root.path(), 5).unwrap();
        let expected = BTreeMap::from([
            (closed, Mask::Directory { mode: None }),
            (root.path().join("open/secret"), Mask::EmptyFile),
        ]);
        assert_eq!(masks, expected);
    }
}
