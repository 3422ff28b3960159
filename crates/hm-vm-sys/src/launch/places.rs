//! Mounts at places that the guest chose, and its working directory.
//!
//! The guest's own symbolic links lie on the way, and this process still holds descriptors of ours:
//! the links of `/proc` that lead to open files must not be followed. All else ends in the guest's root,
//! once the old one is let go of.

use std::ffi::{CStr, c_char};
use std::os::fd::RawFd;

use super::calls::{
    Errno, attributes, check, clone_tree, close, descriptor, last_errno, make_directory_at,
    make_file, own, set_mount_attributes, write_all,
};

/// As overlayfs and every other Linux file system have it.
const LONGEST_NAME: usize = 255;

/// Opens what is at `path` from `directory`, without access to its content.
fn look_up(directory: RawFd, path: &CStr, flags: libc::c_int) -> Result<RawFd, Errno> {
    // SAFETY: plain data, valid when zeroed.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    let flags = flags | libc::O_PATH | libc::O_CLOEXEC;
    how.flags = u64::from(flags.cast_unsigned());
    how.resolve = libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: a C string, and a structure of the size that is passed.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory,
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    })
}

/// A component of a path as a C string, without allocation.
struct Name([u8; LONGEST_NAME + 1]);

impl Name {
    fn new(component: &[u8]) -> Result<Self, Errno> {
        let mut name = [0; LONGEST_NAME + 1];
        if component.len() > LONGEST_NAME {
            return Err(libc::ENAMETOOLONG);
        }
        name[..component.len()].copy_from_slice(component);
        Ok(Self(name))
    }

    fn as_c_str(&self) -> Result<&CStr, Errno> {
        CStr::from_bytes_until_nul(&self.0).map_err(|_| libc::ENAMETOOLONG)
    }
}

/// Opens a directory, and makes it where nothing is.
fn enter(directory: RawFd, name: &CStr, owner: (u32, u32)) -> Result<RawFd, Errno> {
    match look_up(directory, name, libc::O_DIRECTORY) {
        Err(libc::ENOENT) => {
            make_directory_at(directory, name, 0o755)?;
            own(directory, name, owner)?;
            look_up(directory, name, libc::O_DIRECTORY | libc::O_NOFOLLOW)
        }
        other => other,
    }
}

/// Opens a file to mount on, and makes it where nothing is.
fn find_file(directory: RawFd, name: &CStr) -> Result<RawFd, Errno> {
    match look_up(directory, name, 0) {
        Err(libc::ENOENT) => {
            close(make_file(directory, name, 0o600)?);
            look_up(directory, name, libc::O_NOFOLLOW)
        }
        other => other,
    }
}

/// Opens the target, and makes what is missing of it.
fn make_target(target: &CStr, directory: bool, owner: (u32, u32)) -> Result<RawFd, Errno> {
    let mut here = look_up(libc::AT_FDCWD, c"/", libc::O_DIRECTORY)?;
    let mut rest = target.to_bytes();
    loop {
        let start = rest.iter().position(|byte| *byte != b'/');
        let Some(start) = start else {
            return Ok(here);
        };
        rest = &rest[start..];
        let end = rest.iter().position(|byte| *byte == b'/');
        let (component, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        let last = rest.iter().all(|byte| *byte == b'/');
        let next = Name::new(component).and_then(|name| {
            let name = name.as_c_str()?;
            if last && !directory {
                find_file(here, name)
            } else {
                enter(here, name, owner)
            }
        });
        close(here);
        here = next?;
    }
}

pub(super) fn show(
    source: &CStr,
    target: &CStr,
    directory: bool,
    read_only: bool,
    owner: (u32, u32),
) -> Result<(), Errno> {
    let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if read_only {
        set |= libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC;
    }
    let tree = clone_tree(libc::AT_FDCWD, source, 0)?;
    let attributes = attributes(set, None);
    let place = set_mount_attributes(tree, c"", libc::AT_EMPTY_PATH, &attributes)
        .and_then(|()| make_target(target, directory, owner));
    let result = place.and_then(|place| {
        let moved = move_to(tree, place);
        close(place);
        moved
    });
    close(tree);
    result
}

fn move_to(tree: RawFd, place: RawFd) -> Result<(), Errno> {
    let nothing: *const c_char = c"".as_ptr();
    // SAFETY: constant C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree,
            nothing,
            place,
            nothing,
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
}

pub(super) fn enter_working_directory(path: &CStr, make: bool) -> Result<(), Errno> {
    let directory = if make {
        make_target(path, true, (0, 0))?
    } else {
        look_up(libc::AT_FDCWD, path, libc::O_DIRECTORY)?
    };
    // SAFETY: a descriptor of ours.
    let entered = check(unsafe { libc::syscall(libc::SYS_fchdir, directory) });
    close(directory);
    entered
}

pub(super) fn write_secret(path: &CStr, content: &[u8], owner: (u32, u32)) -> Result<(), Errno> {
    let file = make_file(libc::AT_FDCWD, path, 0o400)?;
    let written = write_all(file, content);
    close(file);
    written?;
    own(libc::AT_FDCWD, path, owner)
}

pub(super) fn unmount(path: &CStr) -> Result<(), Errno> {
    // SAFETY: C strings of the plan.
    unsafe {
        check(libc::syscall(
            libc::SYS_umount2,
            path.as_ptr(),
            libc::MNT_DETACH,
        ))?;
        if libc::syscall(
            libc::SYS_unlinkat,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_REMOVEDIR,
        ) < 0
        {
            return Err(last_errno());
        }
    }
    Ok(())
}
