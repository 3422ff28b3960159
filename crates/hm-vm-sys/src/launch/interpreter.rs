//! Carries the operations out, in the child.
//!
//! Nothing here allocates, locks, or touches anything but the plan and the report: the code runs
//! in a process that shares the memory of ours, on a stack of its own.

use std::ffi::{c_char, c_int};
use std::os::fd::RawFd;
use std::ptr;

use super::calls::{Errno, check, die_with_parent, last_errno};
use super::op::Op;
use super::operations::carry_out;
use crate::userns;

/// Everything that the two processes need, with raw pointers where the kernel wants them. Made by
/// the spawner, alive until both have left our memory.
pub(super) struct Plan<'a> {
    pub(super) user_namespace: RawFd,
    pub(super) single_id: bool,
    pub(super) outer: &'a [Op],
    pub(super) unshare: c_int,
    /// Joined after that.
    pub(super) network: Option<RawFd>,
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
    JoinNetwork,
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
        carry_out(op, plan.user_namespace).map_err(|errno| (Stage::Outer(index), errno))?;
    }
    userns::enter(plan.user_namespace, plan.single_id)
        .map_err(|(doing, errno)| (Stage::EnterUserNamespace(doing), errno))?;
    // SAFETY: no pointers. Only this process leaves its namespaces.
    check(unsafe { libc::syscall(libc::SYS_unshare, plan.unshare) })
        .map_err(|errno| (Stage::Unshare, errno))?;
    if let Some(network) = plan.network {
        // SAFETY: no pointers. Only this process and its child change over.
        check(unsafe { libc::syscall(libc::SYS_setns, network, libc::CLONE_NEWNET) })
            .map_err(|errno| (Stage::JoinNetwork, errno))?;
    }
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
    if let Err(errno) = die_with_parent() {
        return (Stage::Prepare, errno);
    }
    for (index, op) in plan.inner.iter().enumerate() {
        if let Err(errno) = carry_out(op, plan.user_namespace) {
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
