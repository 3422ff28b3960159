//! The operations that make a VM's surroundings, for one command.
//!
//! ```text
//! outer, as ourselves   join the cgroup; go to the store. As root also: a private mount namespace,
//!                       the store attached over itself with translated owners, and the host's
//!                       root read-only where the image is `host`
//! inner, as PID 1       overlay; new root; /proc, /sys, /dev; covers over what tells about the
//!                       host; /etc/hosts and the like; leave the old root; working directory;
//!                       drop capabilities; system-call filter
//! ```

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use hm_vm_core::Protection;
use hm_vm_sys::UserNamespace;
use hm_vm_sys::capabilities::DEFAULT_CAPABILITY_MASK;
use hm_vm_sys::launch::Op;
use hm_vm_sys::seccomp;

use crate::command::WorkingDirectory;
use crate::covers::covers;
use crate::environment::{HOST_NAME, ProvidedFile};
use crate::files;
use crate::mounts::Mounts;
use crate::network::Network;
use crate::user::User;

/// Mount flags, by mount(2).
pub(crate) mod flag {
    pub(crate) const RDONLY: u64 = 1;
    pub(crate) const NOSUID: u64 = 2;
    pub(crate) const NODEV: u64 = 4;
    pub(crate) const NOEXEC: u64 = 8;
    pub(crate) const REMOUNT: u64 = 32;
    pub(crate) const BIND: u64 = 4096;
    pub(crate) const REC: u64 = 16384;
}

/// What the operations are derived from.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// Absolute, without links.
    pub(crate) store: &'a Path,
    pub(crate) lowers: Vec<PathBuf>,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    /// Root of the machine: owners are translated by mounts.
    pub(crate) translate_owners: bool,
    pub(crate) host: HostTree,
    pub(crate) cgroup: Vec<Arc<OwnedFd>>,
    /// A size-limited file system that holds `upper` and `work`, and where it belongs.
    pub(crate) disk: Option<(Arc<OwnedFd>, PathBuf)>,
    pub(crate) network: &'a Network,
    /// Who runs the command, if not root.
    pub(crate) user: Option<&'a User>,
    pub(crate) user_namespace: &'a UserNamespace,
    pub(crate) mounts: Option<&'a Mounts>,
    pub(crate) weaker: &'a [Protection],
    pub(crate) provided: &'a [ProvidedFile],
    /// Too long to be an argument: given as a file.
    pub(crate) script: Option<&'a str>,
    /// The host's path of the terminal.
    pub(crate) terminal: Option<&'a Path>,
    pub(crate) working_dir: WorkingDirectory,
}

/// How the host's own files come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostTree {
    /// Not at all.
    Hidden,
    /// Its root is a layer; these mounts below it are shown as they are.
    Layer(Vec<PathBuf>),
    /// These directories are shown as they are.
    Shown(Vec<files::Shown>),
}

/// Where a long command lies in the VM while it runs.
pub(crate) const SCRIPT_PATH: &str = "/dev/.hm-vm-command";

pub(crate) fn c(text: &str) -> CString {
    // Only constants and paths without zero bytes come here.
    CString::new(text).unwrap_or_default()
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .with_context(|| format!("path {} has a zero byte", path.display()))
}

pub(crate) fn mount(source: &str, target: &str, fstype: &str, flags: u64, data: &str) -> Op {
    Op::Mount {
        source: c(source),
        target: c(target),
        fstype: c(fstype),
        flags,
        data: c(data),
        optional: false,
    }
}

pub(crate) fn bind(source: &str, target: &str, flags: u64) -> Op {
    mount(source, target, "", flag::BIND | flags, "")
}

/// A cover over something that this kernel or image may not have.
pub(crate) fn cover(source: &str, target: &str) -> Op {
    Op::Mount {
        source: c(source),
        target: c(target),
        fstype: CString::default(),
        flags: flag::BIND,
        data: CString::default(),
        optional: true,
    }
}

/// The operations in the host's namespaces.
pub(crate) fn outer(around: &Surroundings<'_>) -> Result<Vec<Op>> {
    let mut ops: Vec<Op> = around
        .cgroup
        .iter()
        .map(|procs| Op::JoinCgroup(Arc::clone(procs)))
        .collect();
    let store = c_path(around.store)?;
    if around.translate_owners || around.disk.is_some() {
        ops.push(Op::PrivateMounts);
    }
    if around.translate_owners {
        ops.push(Op::AttachIdMapped {
            source: store.clone(),
            target: store.clone(),
            read_only: false,
        });
        if matches!(around.host, HostTree::Layer(_)) {
            ops.push(Op::AttachIdMapped {
                source: c("/"),
                target: c_path(&around.store.join(files::HOST))?,
                read_only: true,
            });
        }
    }
    if let Some((disk, place)) = &around.disk {
        ops.push(Op::AttachFd {
            mount: Arc::clone(disk),
            target: c_path(&around.store.join(place))?,
            id_mapped: around.translate_owners,
        });
    }
    ops.push(Op::ChangeDirectory(store));
    Ok(ops)
}

/// The operations of the VM's first process.
pub(crate) fn inner(around: &Surroundings<'_>) -> Result<Vec<Op>> {
    let mut ops = Vec::with_capacity(64);
    if matches!(around.host, HostTree::Layer(_)) {
        host_view(&mut ops);
    }
    ops.push(overlay(around)?);
    ops.push(Op::PivotRoot(c(files::ROOT)));
    host_tree(around, &mut ops)?;
    system_directories(around, &mut ops);
    devices(around, &mut ops)?;
    if !around.weaker.contains(&Protection::MaskedPaths) {
        ops.extend_from_slice(covers());
    }
    for file in around.provided {
        let path = format!("/dev/.{}", file.name);
        ops.push(Op::WriteFile {
            path: c(&path),
            mode: 0o644,
            content: file.content.clone(),
        });
        ops.push(cover(&path, &format!("/etc/{}", file.name)));
        ops.push(Op::RemoveFile(c(&path)));
    }
    let owner = around.user.map_or((0, 0), User::ids);
    if let Some(mounts) = around.mounts {
        mounts.fetch(around.store, owner, &mut ops);
    }
    ops.push(Op::DetachOldRoot);
    if let Some(mounts) = around.mounts {
        mounts.show(owner, &mut ops)?;
    }
    ops.push(Op::HostName(c(HOST_NAME)));
    if around.network.is_new() {
        ops.push(Op::LoopbackUp);
    }
    ops.push(Op::WorkingDirectory {
        path: around.working_dir.path.clone(),
        make: around.working_dir.make,
    });
    ops.push(Op::ResourceLimit {
        resource: RLIMIT_CORE,
        soft: 0,
        hard: 0,
    });
    ops.push(Op::KeepCapabilities(DEFAULT_CAPABILITY_MASK));
    if let Some(user) = around.user {
        // Before the filter, which need not allow it, and with the capabilities for it.
        ops.push(user.op(around.user_namespace));
    }
    ops.push(Op::NoNewPrivileges);
    if !around.weaker.contains(&Protection::Seccomp) {
        ops.push(Op::Seccomp(seccomp::default_filter()?));
    }
    Ok(ops)
}

/// `RLIMIT_CORE`: a core file of the guest would go wherever the host's pattern says.
const RLIMIT_CORE: u32 = 4;

/// The kernel takes one page of mount options.
const MOST_OPTIONS: usize = 4095;

fn overlay(around: &Surroundings<'_>) -> Result<Op> {
    let lowers: Vec<_> = around
        .lowers
        .iter()
        .map(|path| path.to_string_lossy())
        .collect();
    // `volatile`: without it, every unmount would flush the whole file system of the store. The
    // store makes its snapshots durable by itself.
    let data = format!(
        "userxattr,volatile,index=off,metacopy=off,lowerdir={},upperdir={},workdir={}",
        lowers.join(":"),
        around.upper.display(),
        around.work.display(),
    );
    anyhow::ensure!(
        data.len() <= MOST_OPTIONS,
        "{} layers are more than the kernel takes",
        lowers.len()
    );
    Ok(mount("overlay", files::ROOT, "overlay", 0, &data))
}

fn host_view(ops: &mut Vec<Op>) {
    ops.push(mount("tmpfs", files::EMPTY, "tmpfs", 0, "size=4k,mode=755"));
    let data = format!(
        "userxattr,index=off,metacopy=off,lowerdir={}:{}",
        files::EMPTY,
        files::HOST
    );
    ops.push(mount(
        "overlay",
        files::HOST_VIEW,
        "overlay",
        flag::RDONLY,
        &data,
    ));
}

/// The working directory is the host's root here, and `/` is the VM's.
fn host_tree(around: &Surroundings<'_>, ops: &mut Vec<Op>) -> Result<()> {
    let paths: Vec<&Path> = match &around.host {
        HostTree::Hidden => return Ok(()),
        HostTree::Layer(mounts) => mounts
            .iter()
            .filter_map(|path| path.strip_prefix("/").ok())
            .collect(),
        HostTree::Shown(directories) => directories.iter().map(|shown| shown.0.as_path()).collect(),
    };
    for path in paths {
        let target = c_path(&Path::new("/").join(path))?;
        ops.push(Op::Mount {
            source: c_path(path)?,
            target: target.clone(),
            fstype: CString::default(),
            flags: flag::BIND | flag::REC,
            data: CString::default(),
            optional: false,
        });
        ops.push(Op::ReadOnlyTree(target));
    }
    Ok(())
}

fn system_directories(around: &Surroundings<'_>, ops: &mut Vec<Op>) {
    let plain = flag::NOSUID | flag::NODEV | flag::NOEXEC;
    ops.push(mount("proc", "/proc", "proc", plain, ""));
    if around.network.is_hosts() {
        // A sysfs of our own can only show a network namespace of our own.
        ops.push(bind("sys", "/sys", flag::REC));
        ops.push(Op::ReadOnlyTree(c("/sys")));
    } else {
        ops.push(mount("sysfs", "/sys", "sysfs", plain | flag::RDONLY, ""));
    }
}

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const DEVICE_LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
    ("/proc/kcore", "/dev/core"),
];

fn devices(around: &Surroundings<'_>, ops: &mut Vec<Op>) -> Result<()> {
    let quiet = flag::NOSUID | flag::NOEXEC;
    ops.push(mount("tmpfs", "/dev", "tmpfs", quiet, "mode=755,size=4m"));
    let file = |path: &str| Op::WriteFile {
        path: c(path),
        mode: 0o666,
        content: Vec::new(),
    };
    for name in DEVICES {
        let path = format!("/dev/{name}");
        ops.push(file(&path));
        ops.push(bind(&path[1..], &path, 0));
    }
    for (target, path) in DEVICE_LINKS {
        ops.push(Op::SymbolicLink {
            target: c(target),
            path: c(path),
        });
    }
    for (name, fstype, flags, data) in [
        ("pts", "devpts", quiet, "newinstance,ptmxmode=0666,mode=620"),
        ("shm", "tmpfs", quiet | flag::NODEV, "mode=1777,size=256m"),
        ("mqueue", "mqueue", quiet | flag::NODEV, ""),
    ] {
        let path = format!("/dev/{name}");
        ops.push(Op::MakeDirectory {
            path: c(&path),
            mode: 0o755,
        });
        ops.push(mount(fstype, &path, fstype, flags, data));
    }
    if let Some(terminal) = around.terminal {
        let source = terminal.strip_prefix("/").unwrap_or(terminal);
        ops.push(file("/dev/console"));
        ops.push(Op::Mount {
            source: c_path(source)?,
            target: c("/dev/console"),
            fstype: CString::default(),
            flags: flag::BIND,
            data: CString::default(),
            optional: false,
        });
    }
    if let Some(script) = around.script {
        ops.push(Op::WriteFile {
            path: c(SCRIPT_PATH),
            mode: 0o444,
            content: script.as_bytes().to_vec(),
        });
    }
    Ok(())
}
