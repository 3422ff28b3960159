//! Which system calls an operation is. As all of the interpreter, it allocates nothing.

use std::os::fd::RawFd;
use std::ptr;

use super::calls::{
    EMPTY_PATH, Errno, attach, attributes, become_user, change_directory, check, clone_tree,
    detach_old_root, keep_capabilities, loopback_up, make_directory, mount, no_new_privileges, own,
    pivot_root, private_mounts, set_mount_attributes, write_file,
};
use super::op::{Op, raw};
use super::places::{enter_working_directory, show, unmount, write_secret};

/// Carries one operation out. `user_namespace` is the one of the launch.
pub(super) fn carry_out(op: &Op, user_namespace: RawFd) -> Result<(), Errno> {
    match op {
        Op::JoinCgroup(file) => {
            // SAFETY: one byte of a static buffer.
            check(unsafe { libc::syscall(libc::SYS_write, raw(file), c"0".as_ptr(), 1) })
        }
        Op::PrivateMounts => private_mounts(),
        Op::AttachIdMapped {
            source,
            target,
            read_only,
        } => {
            let tree = clone_tree(libc::AT_FDCWD, source, 0)?;
            attach(tree, target, *read_only, Some(user_namespace))
        }
        Op::AttachFd {
            mount,
            target,
            id_mapped,
        } => {
            let tree = clone_tree(raw(mount), c"", EMPTY_PATH)?;
            attach(tree, target, false, id_mapped.then_some(user_namespace))
        }
        Op::Mount {
            source,
            target,
            fstype,
            flags,
            data,
            optional,
        } => mount(source, target, fstype, *flags, data, *optional),
        Op::ReadOnlyTree(path) => set_mount_attributes(
            libc::AT_FDCWD,
            path,
            libc::AT_RECURSIVE,
            &attributes(libc::MOUNT_ATTR_RDONLY, None),
        ),
        Op::PivotRoot(path) => pivot_root(path),
        Op::DetachOldRoot => detach_old_root(),
        Op::MakeDirectory { path, mode } => make_directory(path, *mode),
        Op::SymbolicLink { target, path } => check(
            // SAFETY: C strings of the plan.
            unsafe {
                libc::syscall(
                    libc::SYS_symlinkat,
                    target.as_ptr(),
                    libc::AT_FDCWD,
                    path.as_ptr(),
                )
            },
        ),
        Op::WriteFile {
            path,
            mode,
            content,
        } => write_file(path, *mode, content),
        Op::RemoveFile(path) => check(
            // SAFETY: a C string of the plan.
            unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path.as_ptr(), 0) },
        ),
        Op::Own { .. }
        | Op::WriteSecret { .. }
        | Op::Show { .. }
        | Op::Unmount(_)
        | Op::WorkingDirectory { .. } => run_place(op),
        _ => run_privilege(op),
    }
}

/// The operations on what a command sees beside its files.
fn run_place(op: &Op) -> Result<(), Errno> {
    match op {
        Op::Own { path, uid, gid } => own(libc::AT_FDCWD, path, (*uid, *gid)),
        Op::WriteSecret {
            path,
            content,
            owner,
        } => write_secret(path, content.bytes(), *owner),
        Op::Show {
            source,
            target,
            directory,
            read_only,
            owner,
        } => show(source, target, *directory, *read_only, *owner),
        Op::Unmount(path) => unmount(path),
        Op::WorkingDirectory { path, make } => enter_working_directory(path, *make),
        // All others are handled by `carry_out`.
        _ => Err(libc::ENOSYS),
    }
}

/// The operations on the process rather than on its files.
fn run_privilege(op: &Op) -> Result<(), Errno> {
    match op {
        Op::HostName(name) => check(
            // SAFETY: a C string of the plan and its length.
            unsafe { libc::syscall(libc::SYS_sethostname, name.as_ptr(), name.as_bytes().len()) },
        ),
        Op::LoopbackUp => loopback_up(),
        Op::ChangeDirectory(path) => change_directory(path),
        Op::ResourceLimit {
            resource,
            soft,
            hard,
        } => {
            let limit = libc::rlimit64 {
                rlim_cur: *soft,
                rlim_max: *hard,
            };
            // SAFETY: a pointer to a local; no old value is asked for.
            check(unsafe {
                libc::syscall(
                    libc::SYS_prlimit64,
                    0,
                    *resource,
                    &raw const limit,
                    ptr::null::<libc::rlimit64>(),
                )
            })
        }
        Op::KeepCapabilities(keep) => keep_capabilities(*keep),
        Op::BecomeUser { uid, gid, groups } => become_user(*uid, *gid, groups.as_deref()),
        Op::NoNewPrivileges => no_new_privileges(),
        Op::Seccomp(program) => {
            let fprog = program.as_sock_fprog();
            // SAFETY: a pointer to a local that points to the cached program; the kernel copies.
            check(unsafe {
                libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    0,
                    &raw const fprog,
                )
            })
        }
        // All others are handled by `carry_out`.
        _ => Err(libc::ENOSYS),
    }
}
