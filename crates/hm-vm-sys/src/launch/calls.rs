//! System calls, past libc's wrappers where those do more than the call.
//!
//! The code runs in a process that shares our memory: nothing here allocates or locks.

use std::ffi::{CStr, c_char, c_int, c_long};
use std::os::fd::RawFd;
use std::ptr;

/// The number of an errno, or 0.
pub(crate) type Errno = i32;

pub(super) fn last_errno() -> Errno {
    // SAFETY: the thread-local errno of the suspended thread, which we use in its stead.
    unsafe { *libc::__errno_location() }
}

pub(super) fn check(result: c_long) -> Result<(), Errno> {
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

pub(super) fn descriptor(result: c_long) -> Result<RawFd, Errno> {
    check(result)?;
    // A descriptor fits by definition.
    RawFd::try_from(result).map_err(|_| libc::EBADF)
}

pub(super) fn close(fd: RawFd) {
    // SAFETY: a descriptor that this interpreter opened itself.
    unsafe {
        libc::syscall(libc::SYS_close, fd);
    }
}

pub(super) fn private_mounts() -> Result<(), Errno> {
    // SAFETY: no pointers but constant C strings.
    unsafe {
        check(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNS))?;
        check(libc::syscall(
            libc::SYS_mount,
            ptr::null::<c_char>(),
            c"/".as_ptr(),
            ptr::null::<c_char>(),
            libc::MS_REC | libc::MS_PRIVATE,
            ptr::null::<c_char>(),
        ))
    }
}

pub(super) fn attributes(set: u64, user_namespace: Option<RawFd>) -> libc::mount_attr {
    libc::mount_attr {
        attr_set: set
            | if user_namespace.is_some() {
                libc::MOUNT_ATTR_IDMAP
            } else {
                0
            },
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.map_or(0, |fd| u64::try_from(fd).unwrap_or(0)),
    }
}

pub(super) fn set_mount_attributes(
    directory: RawFd,
    path: &CStr,
    flags: c_int,
    attributes: &libc::mount_attr,
) -> Result<(), Errno> {
    // SAFETY: a C string and a structure of the size that is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
            path.as_ptr(),
            flags,
            ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    })
}

pub(super) fn clone_tree(
    directory: RawFd,
    path: &CStr,
    flags: libc::c_uint,
) -> Result<RawFd, Errno> {
    let flags = flags | libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: a C string of the plan.
    descriptor(unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) })
}

pub(super) fn move_mount(tree: RawFd, target: &CStr) -> Result<(), Errno> {
    // SAFETY: C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree,
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
}

pub(super) const EMPTY_PATH: libc::c_uint = libc::AT_EMPTY_PATH.cast_unsigned();

/// Attaches a cloned tree, and closes its descriptor.
pub(super) fn attach(
    tree: RawFd,
    target: &CStr,
    read_only: bool,
    id_map: Option<RawFd>,
) -> Result<(), Errno> {
    let set = if read_only {
        libc::MOUNT_ATTR_RDONLY
    } else {
        0
    };
    let attributes = attributes(set, id_map);
    let result = if attributes.attr_set == 0 {
        Ok(())
    } else {
        set_mount_attributes(tree, c"", libc::AT_EMPTY_PATH, &attributes)
    };
    let result = result.and_then(|()| move_mount(tree, target));
    close(tree);
    result
}

pub(super) fn mount(
    source: &CStr,
    target: &CStr,
    fstype: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
    optional: bool,
) -> Result<(), Errno> {
    // SAFETY: C strings of the plan.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_mount,
            source.as_ptr(),
            target.as_ptr(),
            fstype.as_ptr(),
            flags,
            data.as_ptr(),
        )
    });
    match result {
        Err(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EISDIR) if optional => Ok(()),
        other => other,
    }
}

pub(super) fn change_directory(path: &CStr) -> Result<(), Errno> {
    // SAFETY: a C string.
    check(unsafe { libc::syscall(libc::SYS_chdir, path.as_ptr()) })
}

pub(super) fn pivot_root(path: &CStr) -> Result<(), Errno> {
    // SAFETY: constant C strings. Afterwards the old root is mounted over the new one, at ".",
    // reachable through `old` alone (as pivot_root(2) describes).
    unsafe {
        let old = descriptor(libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
        ))?;
        change_directory(path)?;
        check(libc::syscall(
            libc::SYS_pivot_root,
            c".".as_ptr(),
            c".".as_ptr(),
        ))?;
        let result = check(libc::syscall(libc::SYS_fchdir, old));
        close(old);
        result
    }
}

pub(super) fn detach_old_root() -> Result<(), Errno> {
    // SAFETY: a constant C string.
    check(unsafe { libc::syscall(libc::SYS_umount2, c".".as_ptr(), libc::MNT_DETACH) })?;
    change_directory(c"/")
}

pub(super) fn make_directory(path: &CStr, mode: u32) -> Result<(), Errno> {
    match make_directory_at(libc::AT_FDCWD, path, mode) {
        Err(libc::EEXIST) => Ok(()),
        other => other,
    }
}

pub(super) fn make_directory_at(directory: RawFd, path: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: a C string of the plan.
    check(unsafe { libc::syscall(libc::SYS_mkdirat, directory, path.as_ptr(), mode) })
}

pub(super) fn make_file(directory: RawFd, path: &CStr, mode: u32) -> Result<RawFd, Errno> {
    // SAFETY: a C string of the plan.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_openat,
            directory,
            path.as_ptr(),
            libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW,
            mode,
        )
    })
}

pub(super) fn own(directory: RawFd, path: &CStr, owner: (u32, u32)) -> Result<(), Errno> {
    // SAFETY: a C string of the plan.
    check(unsafe {
        libc::syscall(
            libc::SYS_fchownat,
            directory,
            path.as_ptr(),
            owner.0,
            owner.1,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })
}

pub(super) fn write_file(path: &CStr, mode: u32, content: &[u8]) -> Result<(), Errno> {
    let file = make_file(libc::AT_FDCWD, path, mode)?;
    let written = write_all(file, content);
    close(file);
    written
}

pub(super) fn write_all(file: RawFd, content: &[u8]) -> Result<(), Errno> {
    let mut rest = content;
    while !rest.is_empty() {
        // SAFETY: a buffer of the plan and its length.
        let written = unsafe { libc::syscall(libc::SYS_write, file, rest.as_ptr(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) => rest = &rest[written.min(rest.len())..],
            Err(_) => return Err(last_errno()),
        }
    }
    Ok(())
}

pub(crate) fn loopback_up() -> Result<(), Errno> {
    // SAFETY: needed because no safe crate offers SIOCSIFFLAGS. Sound: `request` is a zeroed
    // `ifreq`, valid for all its fields, of the size that the kernel expects.
    unsafe {
        let socket = descriptor(libc::syscall(
            libc::SYS_socket,
            libc::AF_INET,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            0,
        ))?;
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *to = from.cast_signed();
        }
        // Both flags fit into the field.
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result = check(libc::syscall(
            libc::SYS_ioctl,
            socket,
            libc::SIOCSIFFLAGS,
            &raw const request,
        ));
        close(socket);
        result
    }
}

/// Has the kernel kill this process when the thread that made it ends.
pub(super) fn die_with_parent() -> Result<(), Errno> {
    // SAFETY: no pointers.
    check(unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_SET_PDEATHSIG,
            libc::SIGKILL,
            0,
            0,
            0,
        )
    })
}

pub(super) fn become_user(uid: u32, gid: u32, groups: Option<&[u32]>) -> Result<(), Errno> {
    // SAFETY: needed because libc's wrappers would change the ids of the parent's threads too. The
    // only pointer is that of the list of groups, passed with its length.
    unsafe {
        if let Some(groups) = groups {
            check(libc::syscall(
                libc::SYS_setgroups,
                groups.len(),
                groups.as_ptr(),
            ))?;
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    // The kernel takes it away with a change of the user.
    die_with_parent()
}

pub(super) fn no_new_privileges() -> Result<(), Errno> {
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits each.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// More than any kernel has; the first unknown one ends the loop.
const CAPABILITY_END: u32 = 64;

pub(super) fn keep_capabilities(keep: u64) -> Result<(), Errno> {
    for capability in 0..CAPABILITY_END {
        if keep & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: no pointers.
        let dropped = check(unsafe {
            libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0)
        });
        match dropped {
            Err(libc::EINVAL) => break,
            other => other?,
        }
    }
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let word = |shift: u32| {
        // Truncation to the word is meant.
        let bits = (keep >> shift) as u32;
        CapabilityData {
            effective: bits,
            permitted: bits,
            inheritable: 0,
        }
    };
    let data = [word(0), word(32)];
    // SAFETY: structures as capset(2) lays them out, two of them for version 3.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })
}
