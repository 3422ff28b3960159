//! Carries the operations out, in the child.
//!
//! Nothing here allocates, locks, or touches anything but the plan and the report: the code runs
//! in a process that shares the memory of ours, on a stack of its own.

use std::ffi::{CStr, c_char, c_int, c_long};
use std::os::fd::RawFd;
use std::ptr;

use super::op::{Op, raw};
use crate::userns;

/// The number of an errno, or 0.
pub(super) type Errno = i32;

/// Everything that the two processes need, with raw pointers where the kernel wants them. Made by
/// the spawner, alive until both have left our memory.
pub(super) struct Plan<'a> {
    pub(super) user_namespace: RawFd,
    pub(super) single_id: bool,
    pub(super) outer: &'a [Op],
    pub(super) unshare: c_int,
    pub(super) inner: &'a [Op],
    /// Becomes descriptors 0, 1, 2, 3 and 4 (`None` is closed), each above them now.
    pub(super) descriptors: [Option<RawFd>; 5],
    /// The init program.
    pub(super) init: RawFd,
    /// Null-terminated arrays.
    pub(super) argv: *const *const c_char,
    pub(super) env: *const *const c_char,
    pub(super) inner_stack: *mut libc::c_void,
    pub(super) report: Report,
}

/// What the two processes tell the spawner. Shared memory: read after both have left it.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Process id of PID 1 as we see it.
    pub(super) pid: libc::pid_t,
    pub(super) failure: Option<Failure>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) errno: Errno,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Outer(usize),
    EnterUserNamespace(&'static str),
    Unshare,
    CloneInner,
    Prepare,
    Inner(usize),
    Descriptors,
    Exec,
}

/// First process: outer operations, user namespace, then the second process.
pub(super) extern "C" fn intermediate(argument: *mut libc::c_void) -> c_int {
    // SAFETY: the spawner passes its own plan and is suspended while we run (CLONE_VFORK).
    let plan = unsafe { &mut *argument.cast::<Plan<'_>>() };
    if let Err((stage, errno)) = run_intermediate(plan) {
        plan.report.failure = Some(Failure { stage, errno });
    }
    // SAFETY: leaves without running the exit handlers of our memory's owner.
    unsafe { libc::_exit(0) }
}

fn run_intermediate(plan: &mut Plan<'_>) -> Result<(), (Stage, Errno)> {
    for (index, op) in plan.outer.iter().enumerate() {
        run(op, plan).map_err(|errno| (Stage::Outer(index), errno))?;
    }
    userns::enter(plan.user_namespace, plan.single_id)
        .map_err(|(doing, errno)| (Stage::EnterUserNamespace(doing), errno))?;
    // SAFETY: no pointers. Only this process leaves its namespaces.
    check(unsafe { libc::syscall(libc::SYS_unshare, plan.unshare) })
        .map_err(|errno| (Stage::Unshare, errno))?;
    let stack = plan.inner_stack;
    let argument = ptr::from_mut(plan).cast();
    // SAFETY: as for the clone that made this process: it is suspended until the child has left
    // our memory by exec or exit, and the child has a stack of its own. CLONE_PARENT makes the
    // child the spawner's.
    let pid = unsafe {
        libc::clone(
            pid_one,
            stack,
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT,
            argument,
        )
    };
    if pid < 0 {
        return Err((Stage::CloneInner, last_errno()));
    }
    plan.report.pid = pid;
    Ok(())
}

/// Second process: PID 1 of the new namespaces, until it becomes init.
extern "C" fn pid_one(argument: *mut libc::c_void) -> c_int {
    // SAFETY: the intermediate process passes the plan and is suspended while we run.
    let plan = unsafe { &mut *argument.cast::<Plan<'_>>() };
    let (stage, errno) = run_pid_one(plan);
    plan.report.failure = Some(Failure { stage, errno });
    // SAFETY: as above.
    unsafe { libc::_exit(125) }
}

/// Returns only on failure.
fn run_pid_one(plan: &Plan<'_>) -> (Stage, Errno) {
    // The parent of this process is the spawner thread, which lives as long as our process.
    // SAFETY: no pointers.
    let prepared = check(unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_SET_PDEATHSIG,
            libc::SIGKILL,
            0,
            0,
            0,
        )
    });
    if let Err(errno) = prepared {
        return (Stage::Prepare, errno);
    }
    for (index, op) in plan.inner.iter().enumerate() {
        if let Err(errno) = run(op, plan) {
            return (Stage::Inner(index), errno);
        }
    }
    if let Err(errno) = arrange_descriptors(plan) {
        return (Stage::Descriptors, errno);
    }
    // SAFETY: `argv` and `env` are null-terminated arrays of C strings that outlive the exec.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            plan.init,
            c"".as_ptr(),
            plan.argv,
            plan.env,
            libc::AT_EMPTY_PATH,
        );
    }
    (Stage::Exec, last_errno())
}

fn arrange_descriptors(plan: &Plan<'_>) -> Result<(), Errno> {
    for (number, descriptor) in (0..).zip(plan.descriptors) {
        match descriptor {
            Some(descriptor) => {
                // SAFETY: no pointers; the table of descriptors is this process's own copy.
                check(unsafe { libc::syscall(libc::SYS_dup3, descriptor, number, 0) })?;
            }
            // SAFETY: as above. The number may not be open: that is as wanted.
            None => unsafe {
                libc::syscall(libc::SYS_close, number);
            },
        }
    }
    // Not closed but marked: the init program is executed through one of them.
    // SAFETY: as above.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            5,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
}

fn last_errno() -> Errno {
    // SAFETY: the thread-local errno of the suspended thread, which we use in its stead.
    unsafe { *libc::__errno_location() }
}

fn check(result: c_long) -> Result<(), Errno> {
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

fn descriptor(result: c_long) -> Result<RawFd, Errno> {
    check(result)?;
    // A descriptor fits by definition.
    RawFd::try_from(result).map_err(|_| libc::EBADF)
}

fn close(fd: RawFd) {
    // SAFETY: a descriptor that this interpreter opened itself.
    unsafe {
        libc::syscall(libc::SYS_close, fd);
    }
}

fn run(op: &Op, plan: &Plan<'_>) -> Result<(), Errno> {
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
            attach(tree, target, *read_only, Some(plan.user_namespace))
        }
        Op::AttachFd {
            mount,
            target,
            id_mapped,
        } => {
            let tree = clone_tree(raw(mount), c"", EMPTY_PATH)?;
            attach(
                tree,
                target,
                false,
                id_mapped.then_some(plan.user_namespace),
            )
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
        _ => run_privilege(op),
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
        Op::ChangeDirectory(path) | Op::WorkingDirectory(path) => change_directory(path),
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
        // All others are handled by `run`.
        _ => Err(libc::ENOSYS),
    }
}

fn private_mounts() -> Result<(), Errno> {
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

fn attributes(set: u64, user_namespace: Option<RawFd>) -> libc::mount_attr {
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

fn set_mount_attributes(
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

fn clone_tree(directory: RawFd, path: &CStr, flags: libc::c_uint) -> Result<RawFd, Errno> {
    let flags = flags | libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: a C string of the plan.
    descriptor(unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) })
}

fn move_mount(tree: RawFd, target: &CStr) -> Result<(), Errno> {
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

const EMPTY_PATH: libc::c_uint = libc::AT_EMPTY_PATH.cast_unsigned();

/// Attaches a cloned tree, and closes its descriptor.
fn attach(tree: RawFd, target: &CStr, read_only: bool, id_map: Option<RawFd>) -> Result<(), Errno> {
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

fn mount(
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

fn change_directory(path: &CStr) -> Result<(), Errno> {
    // SAFETY: a C string.
    check(unsafe { libc::syscall(libc::SYS_chdir, path.as_ptr()) })
}

fn pivot_root(path: &CStr) -> Result<(), Errno> {
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

fn detach_old_root() -> Result<(), Errno> {
    // SAFETY: a constant C string.
    check(unsafe { libc::syscall(libc::SYS_umount2, c".".as_ptr(), libc::MNT_DETACH) })?;
    change_directory(c"/")
}

fn make_directory(path: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: a C string of the plan.
    let result =
        check(unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path.as_ptr(), mode) });
    match result {
        Err(libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn write_file(path: &CStr, mode: u32, content: &[u8]) -> Result<(), Errno> {
    // SAFETY: a C string of the plan.
    let file = descriptor(unsafe {
        libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW,
            mode,
        )
    })?;
    let mut rest = content;
    while !rest.is_empty() {
        // SAFETY: a buffer of the plan and its length.
        let written = unsafe { libc::syscall(libc::SYS_write, file, rest.as_ptr(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) => rest = &rest[written.min(rest.len())..],
            Err(_) => {
                let errno = last_errno();
                close(file);
                return Err(errno);
            }
        }
    }
    close(file);
    Ok(())
}

fn loopback_up() -> Result<(), Errno> {
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

fn no_new_privileges() -> Result<(), Errno> {
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

fn keep_capabilities(keep: u64) -> Result<(), Errno> {
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
