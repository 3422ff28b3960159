//! Kinds of mounts.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::CWD;
use rustix::mount::{FsOpenFlags, OpenTreeFlags, fsopen, open_tree};

use super::{Fact, kernel};

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

pub(super) fn overlay() -> Fact {
    let name = "overlay";
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known
        .lines()
        .any(|line| line.trim_start_matches("nodev").trim() == "overlay")
    {
        let detail = "the kernel does not know overlayfs (yet)";
        return Fact::missing(name, detail, "sudo modprobe overlay");
    }
    match kernel::release() {
        (release, Some(version)) if version < (5, 11) => Fact::missing(
            name,
            format!("Linux {release} mounts none in user namespaces"),
            "upgrade the kernel to 5.11 or later",
        ),
        _ => Fact::ok(name, "works in user namespaces"),
    }
}

pub(super) fn mount_api() -> Fact {
    let name = "new mount calls";
    match fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC) {
        // An ordinary user is refused after the call was found.
        Ok(_) | Err(rustix::io::Errno::PERM) => Fact::ok(name, "fsopen works"),
        Err(error) => Fact::missing(
            name,
            format!("fsopen failed: {error}"),
            "upgrade the kernel to 5.2 or later; in a container, allow the call",
        ),
    }
}

/// Makes one of the store's own directory, detached.
pub(super) fn idmapped(dir: &Path) -> Fact {
    let name = "idmapped mounts";
    if !rustix::process::geteuid().is_root() {
        return Fact::ok(name, "not needed by an ordinary user");
    }
    match try_idmapped(dir) {
        Ok(()) => Fact::ok(
            name,
            format!("work on the file system of {}", dir.display()),
        ),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Fact::missing(
            name,
            format!("the file system of {} has none", dir.display()),
            "put the store on ext4, xfs, btrfs or (from Linux 6.3) tmpfs with --store",
        ),
        Err(error) => Fact::missing(
            name,
            format!("making one of {} failed: {error}", dir.display()),
            "upgrade the kernel to 5.12 or later; in a container, run it privileged",
        ),
    }
}

fn try_idmapped(dir: &Path) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, dir, flags)?;
    let users = user_namespace()?;
    set_idmap(tree.as_fd(), users.as_fd())
}

/// A user namespace with a mapping. It lives as long as the descriptor.
fn user_namespace() -> io::Result<OwnedFd> {
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    // SAFETY: needed as a threaded process cannot make one for itself. The closure is one system
    // call, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            if libc::unshare(libc::CLONE_NEWUSER) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let map = || {
        let process = format!("/proc/{}", child.id());
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("{process}/{file}"), "0 65536 65536")?;
        }
        fs::File::open(format!("{process}/ns/user")).map(OwnedFd::from)
    };
    let namespace = map();
    // The end of its input ends it.
    drop(child.stdin.take());
    child.wait()?;
    namespace
}

fn set_idmap(tree: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        userns: u64::from(users.as_raw_fd().cast_unsigned()),
    };
    // SAFETY: needed as rustix has no `mount_setattr`. The kernel reads an empty string and a
    // `struct mount_attr` of the size given; both live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&attributes),
            size_of::<MountAttr>(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The kernel lets a user namespace mount proc only if the proc that is there is seen whole.
pub(super) fn proc_is_whole() -> Fact {
    let name = "proc in a VM";
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let covered = covered_paths(&mountinfo);
    if covered.is_empty() {
        return Fact::ok(name, "nothing of /proc is covered here");
    }
    Fact::missing(
        name,
        format!(
            "this container covers {} of /proc, among them {}",
            covered.len(),
            covered[0]
        ),
        "docker run --security-opt systempaths=unconfined, or podman run --security-opt \
         unmask=ALL",
    )
}

/// What is mounted below /proc; `binfmt_misc` on its empty directory does not count.
pub(super) fn covered_paths(mountinfo: &str) -> Vec<&str> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|path| path.starts_with("/proc/") && !path.ends_with("/binfmt_misc"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_over_proc_are_seen() {
        let text = "22 1 0:20 / /proc rw - proc proc rw\n\
            23 22 0:21 / /proc/sys/fs/binfmt_misc rw - binfmt_misc b rw\n\
            24 22 0:22 /null /proc/kcore rw - tmpfs t rw\n";
        assert_eq!(covered_paths(text), ["/proc/kcore"]);
    }
}
