//! Which hierarchies there are, and where in them we are.

use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::error::SysError;

/// The two generations of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// A mounted hierarchy of control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// The controllers of a v1 hierarchy. v2 says them group by group.
    pub(super) controllers: Vec<String>,
    /// Where it is mounted.
    pub(super) mount_point: PathBuf,
    /// The directory of our own group.
    pub(super) own: PathBuf,
}

/// What is known of the machine. Tests make their own.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) hierarchies: Vec<Hierarchy>,
    pub(super) uid: u32,
    /// Address of the bus on which the user's own systemd can be asked.
    pub(super) user_bus: Option<String>,
}

impl Machine {
    /// Looks at this machine.
    pub(super) fn read() -> Result<Self, SysError> {
        let get = |path: &str| {
            fs::read_to_string(path).map_err(|e| SysError::new(format!("reading {path}"), e))
        };
        let mountinfo = get("/proc/self/mountinfo")?;
        let own = get("/proc/self/cgroup")?;
        let uid = rustix::process::geteuid().as_raw();
        let socket = format!("/run/user/{uid}/bus");
        Ok(Self {
            hierarchies: parse(&mountinfo, &own),
            uid,
            user_bus: Path::new(&socket)
                .exists()
                .then(|| format!("unix:path={socket}")),
        })
    }

    /// The v1 hierarchy that has the controller.
    pub(super) fn v1(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| {
            hierarchy.version == Version::V1
                && hierarchy.controllers.iter().any(|name| name == controller)
        })
    }

    /// The v2 hierarchy.
    pub(super) fn v2(&self) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.version == Version::V2)
    }
}

/// Finds the hierarchies in the text of `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(super) fn parse(mountinfo: &str, own_groups: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else {
            continue;
        };
        let mount: Vec<&str> = mount.split(' ').collect();
        let file_system: Vec<&str> = file_system.split(' ').collect();
        let (&[_, _, _, root, mount_point, ..], &[kind, _, options, ..]) =
            (&mount[..], &file_system[..])
        else {
            continue;
        };
        let (version, controllers) = match kind {
            "cgroup" => (Version::V1, controllers_of(options)),
            "cgroup2" => (Version::V2, Vec::new()),
            _ => continue,
        };
        let Some(path) = own_group(own_groups, version, &controllers) else {
            continue;
        };
        let mount_point = unescape(mount_point);
        // A bind mount of a part of the hierarchy shows our own group only if it is inside.
        let own = match Path::new(&path).strip_prefix(unescape(root)) {
            Ok(inside) if inside.components().next().is_some() => mount_point.join(inside),
            _ => mount_point.clone(),
        };
        let same = |other: &Hierarchy| other.version == version && other.controllers == controllers;
        if !found.iter().any(same) {
            found.push(Hierarchy {
                version,
                controllers,
                mount_point,
                own,
            });
        }
    }
    found
}

/// The path of our group in the hierarchy, by lines as `4:cpu,cpuacct:/path` or `0::/path`.
fn own_group(own_groups: &str, version: Version, controllers: &[String]) -> Option<String> {
    own_groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = match version {
            Version::V2 => id == "0" && names.is_empty(),
            Version::V1 => names
                .split(',')
                .any(|name| !name.is_empty() && controllers.iter().any(|own| own == name)),
        };
        ours.then(|| path.to_owned())
    })
}

/// The controllers among the options of a v1 mount; a few other words remain, such as `xattr`.
fn controllers_of(options: &str) -> Vec<String> {
    options
        .split(',')
        .filter(|option| !matches!(*option, "rw" | "ro"))
        .map(str::to_owned)
        .collect()
}

/// Undoes the octal escapes of `/proc/self/mountinfo`.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            out.push(byte);
            rest = &after[3..];
        } else {
            out.push(first);
            rest = after;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}
