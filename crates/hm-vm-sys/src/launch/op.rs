//! What is to be done between clone and exec, as data.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use crate::seccomp::Program;
use crate::userns::UserNamespace;

/// One operation of the child. Paths are relative to the working directory of that moment, or
/// absolute in the root of that moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Op {
    /// Writes "0" to an open `cgroup.procs`: the process joins that cgroup.
    JoinCgroup(Arc<OwnedFd>),
    /// Leaves the parent's mount namespace, so that further mounts stay private.
    PrivateMounts,
    /// Attaches a clone of the tree at `source` over `target`, with owners translated by the
    /// user namespace of the launch: an owner on disk is the same number inside.
    AttachIdMapped {
        /// Where the tree is.
        source: CString,
        /// An existing directory.
        target: CString,
        /// Whether nothing may be written through it.
        read_only: bool,
    },
    /// Attaches a mount that exists only as a file descriptor (`fsmount(2)`, `open_tree(2)`).
    AttachFd {
        /// The detached mount. It is cloned: the same one serves many launches.
        mount: Arc<OwnedFd>,
        /// An existing directory.
        target: CString,
        /// Whether owners are translated, as for [`AttachIdMapped`](Self::AttachIdMapped).
        id_mapped: bool,
    },
    /// `mount(2)`.
    Mount {
        /// Device, or tree to bind.
        source: CString,
        /// Where to.
        target: CString,
        /// File system type; empty for binds and changes.
        fstype: CString,
        /// `MS_*` flags.
        flags: libc::c_ulong,
        /// Options of the file system.
        data: CString,
        /// A target that is not there, or not of the right kind, is passed over.
        optional: bool,
    },
    /// Makes the mount at this path, and all below it, read-only.
    ReadOnlyTree(CString),
    /// Makes this directory the root. The working directory becomes the *old* root, so that
    /// relative paths still reach it; absolute ones mean the new root.
    PivotRoot(CString),
    /// Lets go of the old root, which must be the working directory; goes to `/`.
    DetachOldRoot,
    /// Makes a directory. One that exists is kept as it is.
    MakeDirectory {
        /// Its path.
        path: CString,
        /// Its mode.
        mode: u32,
    },
    /// Makes a symbolic link.
    SymbolicLink {
        /// What it says.
        target: CString,
        /// Where it is.
        path: CString,
    },
    /// Makes a file.
    WriteFile {
        /// Its path.
        path: CString,
        /// Its mode.
        mode: u32,
        /// Its content.
        content: Vec<u8>,
    },
    /// Removes a file.
    RemoveFile(CString),
    /// Sets the host name.
    HostName(CString),
    /// Brings the loopback interface up.
    LoopbackUp,
    /// Changes the working directory, for the relative paths of later operations.
    ChangeDirectory(CString),
    /// Changes the working directory of the command. Only allowed once the old root is let go of: symbolic links on
    /// the way are the guest's, and end in its root. The links of `/proc` that lead to open files are
    /// not followed. A failure is an error of its own.
    WorkingDirectory {
        /// An absolute path; without `..` if it is to be made.
        path: CString,
        /// Whether what is missing of it is made, and belongs to root.
        make: bool,
    },
    /// Sets a resource limit, soft and hard.
    ResourceLimit {
        /// `RLIMIT_*`.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// Keeps only these capabilities (bit N is capability N), in every set.
    KeepCapabilities(u64),
    /// Becomes this user: supplementary groups, group, user. Anybody but root loses all
    /// capabilities by it. A launch with this must be [gated](Launch::gated): the signal at our
    /// death is asked for anew, and who waits at the gate notices a death in between.
    BecomeUser {
        /// User id inside.
        uid: u32,
        /// Group id inside.
        gid: u32,
        /// Supplementary groups. `None` leaves them alone, for namespaces where the kernel forbids to
        /// set them.
        groups: Option<Vec<u32>>,
    },
    /// Gives a file to somebody. A symbolic link is not followed.
    Own {
        /// Its path.
        path: CString,
        /// User id inside.
        uid: u32,
        /// Group id inside.
        gid: u32,
    },
    /// Makes a file that only its owner can read.
    WriteSecret {
        /// Its path.
        path: CString,
        /// Its content.
        content: Concealed,
        /// User and group id inside.
        owner: (u32, u32),
    },
    /// Shows at `target` what is at `source`, never with set-user-id bits or devices. Only allowed once the old
    /// root is let go of: symbolic links on the way to the target are the guest's, and end in its
    /// root. The links of `/proc` that lead to open files are not followed. What is missing of the
    /// target is made. A failure is an error of its own.
    Show {
        /// A path of ours.
        source: CString,
        /// An absolute path without `..`.
        target: CString,
        /// Whether it is a directory, rather than a file.
        directory: bool,
        /// Whether nothing may be written or executed there.
        read_only: bool,
        /// Who owns the directories that had to be made.
        owner: (u32, u32),
    },
    /// Lets go of the mount at this directory, and removes the directory.
    Unmount(CString),
    /// No program that is executed from now on gains privileges.
    NoNewPrivileges,
    /// Filters system calls from now on.
    Seccomp(&'static Program),
}

/// Bytes that the list of operations does not show.
#[derive(Clone)]
pub struct Concealed(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Concealed {
    /// Hides what `bytes` are. They are not copied.
    pub fn new(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for Concealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Which network namespace the VM is in.
#[derive(Clone, Debug)]
pub enum NetworkOf {
    /// A new one, with nothing but loopback, which is down.
    New,
    /// The one of our process.
    Caller,
    /// This one, which belongs to the user namespace of the launch.
    Shared(Arc<OwnedFd>),
}

/// Which namespaces the VM gets beside user, mount, PID, IPC, UTS and cgroup, which are always new.
#[derive(Clone, Debug)]
pub struct Namespaces {
    /// The network namespace.
    pub network: NetworkOf,
}

/// A process to start.
#[derive(Debug)]
pub struct Launch {
    /// Entered between the two lists.
    pub user_namespace: Arc<UserNamespace>,
    /// Done in the caller's namespaces, with its privileges.
    pub outer: Vec<Op>,
    /// Further namespaces.
    pub namespaces: Namespaces,
    /// Done as PID 1 and root of the new namespaces.
    pub inner: Vec<Op>,
    /// The command and its arguments. The first one is an absolute path inside.
    pub argv: Vec<CString>,
    /// Its environment, as `NAME=value`.
    pub env: Vec<CString>,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// Standard input is a terminal, which becomes the controlling one of the command.
    pub terminal: bool,
    /// The command waits until [`Process::open_gate`](super::Process::open_gate).
    pub gated: bool,
}

impl fmt::Display for Launch {
    /// The operations, one a line: for debugging.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for op in &self.outer {
            writeln!(f, "outer {op:?}")?;
        }
        writeln!(f, "enter {:?} {:?}", self.user_namespace, self.namespaces)?;
        for op in &self.inner {
            writeln!(f, "inner {op:?}")?;
        }
        write!(f, "exec {:?}", self.argv)
    }
}

impl Op {
    /// The protection that the operation gives, under the name that users know it by.
    pub(super) fn protection(&self) -> Option<&'static str> {
        match self {
            Self::AttachIdMapped { .. } => Some("id-map"),
            Self::Seccomp(_) => Some("seccomp"),
            _ => None,
        }
    }

    /// Short words for messages: what the operation does to what.
    pub fn describe(&self) -> String {
        let text = |path: &CString| path.to_string_lossy().into_owned();
        match self {
            Self::JoinCgroup(_) => "joining the cgroup".into(),
            Self::PrivateMounts => "making mounts private".into(),
            Self::AttachIdMapped { source, .. } => {
                format!("attaching {} with translated owners", text(source))
            }
            Self::AttachFd { target, .. } => format!("attaching a mount at {}", text(target)),
            Self::Mount { target, fstype, .. } => {
                let fstype = text(fstype);
                let what = if fstype.is_empty() { "a bind" } else { &fstype };
                format!("mounting {what} at {}", text(target))
            }
            Self::ReadOnlyTree(path) => format!("making {} read-only", text(path)),
            Self::PivotRoot(path) => format!("changing the root to {}", text(path)),
            Self::DetachOldRoot => "leaving the host's root".into(),
            Self::MakeDirectory { path, .. } => format!("making directory {}", text(path)),
            Self::SymbolicLink { path, .. } => format!("making link {}", text(path)),
            Self::WriteFile { path, .. } => format!("writing {}", text(path)),
            Self::RemoveFile(path) => format!("removing {}", text(path)),
            Self::HostName(_) => "setting the host name".into(),
            Self::LoopbackUp => "bringing the loopback interface up".into(),
            Self::ChangeDirectory(path) | Self::WorkingDirectory { path, .. } => {
                format!("changing to directory {}", text(path))
            }
            Self::ResourceLimit { .. } => "setting a resource limit".into(),
            Self::KeepCapabilities(_) => "dropping capabilities".into(),
            Self::BecomeUser { uid, .. } => format!("becoming user {uid}"),
            Self::Own { path, .. } => format!("setting the owner of {}", text(path)),
            Self::WriteSecret { path, .. } => format!("writing {}", text(path)),
            Self::Show { target, .. } => format!("mounting at {}", text(target)),
            Self::Unmount(path) => format!("unmounting {}", text(path)),
            Self::NoNewPrivileges => "forbidding new privileges".into(),
            Self::Seccomp(_) => "installing the system-call filter".into(),
        }
    }
}

/// A raw descriptor of an `Arc<OwnedFd>`, for the interpreter.
pub(super) fn raw(fd: &Arc<OwnedFd>) -> RawFd {
    use std::os::fd::AsRawFd;
    fd.as_raw_fd()
}
