//! The init program, as a file that can be executed.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, Mode, SealFlags};

use super::spawner::lift;
use crate::SysError;

/// Built by `build.rs` from `init/main.rs`.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hm-vm-init"));

/// A descriptor of the program, for execveat(2). Made once, and kept until our process ends.
///
/// The file is sealed: a guest that opens it through `/proc/1/exe` cannot change what the next VM
/// executes.
pub(super) fn init_program() -> Result<RawFd, SysError> {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(file) = FILE.get() {
        return Ok(file.as_raw_fd());
    }
    let made = make()?;
    Ok(FILE.get_or_init(|| made).as_raw_fd())
}

fn make() -> Result<OwnedFd, SysError> {
    let failed = |errno| SysError::new("making the init program", errno);
    let file = rustix::fs::memfd_create(
        "hm-vm-init",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )
    .map_err(failed)?;
    let mut rest = PROGRAM;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest).map_err(failed)?;
        rest = &rest[written..];
    }
    let executable = Mode::from_raw_mode(0o555);
    rustix::fs::fchmod(&file, executable).map_err(failed)?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )
    .map_err(failed)?;
    // Above the descriptors that are assigned in the child before it is executed.
    lift(&file)
}
