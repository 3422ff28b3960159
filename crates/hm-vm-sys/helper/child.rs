//! In the child: becomes the command.

use core::ffi::CStr;

use crate::calls::{self, Result};
use crate::numbers::*;
use crate::run_files::make_directories;
use crate::users::User;

/// What the pipe to the helper says when there is no command: the report's kind and value.
pub type Failure = [i32; 2];

/// What the command gets.
pub struct Command<'a> {
    pub path: &'a CStr,
    /// Arrays that end with a null pointer.
    pub argv: *const usize,
    pub env: *const usize,
    pub directory: &'a CStr,
    pub make_directory: bool,
    pub user: Option<&'a User<'a>>,
    /// Becomes standard input.
    pub input: i32,
    /// Becomes standard output and error too, and the controlling terminal.
    pub terminal: Option<i32>,
    pub failures: i32,
}

/// Never returns to the helper's own work.
pub fn become_command(command: &Command<'_>) -> ! {
    let failure = match prepare(command) {
        Err(failure) => failure,
        Ok(()) => {
            // SAFETY: promised by who made the command.
            let errno = unsafe { calls::execute(command.path, command.argv, command.env) };
            [crate::NOT_EXECUTED as i32, errno]
        }
    };
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&failure[0].to_ne_bytes());
    bytes[4..].copy_from_slice(&failure[1].to_ne_bytes());
    let _ = calls::write(command.failures, &bytes);
    calls::exit(127)
}

fn prepare(command: &Command<'_>) -> core::result::Result<(), Failure> {
    const SET_CONTROLLING: usize = 0x540E;
    let not_executed = |errno| [crate::NOT_EXECUTED as i32, errno];
    calls::new_session();
    calls::duplicate(command.input, 0).map_err(not_executed)?;
    if let Some(terminal) = command.terminal {
        calls::duplicate(terminal, 1).map_err(not_executed)?;
        calls::duplicate(terminal, 2).map_err(not_executed)?;
        calls::control(0, SET_CONTROLLING, 0).map_err(not_executed)?;
    }
    prefer_for_oom();
    calls::set_file_mask(0o022);
    enter(command).map_err(|errno| [crate::NO_DIRECTORY as i32, errno])?;
    become_user(command.user).map_err(|errno| [crate::NO_USER as i32, -errno])?;
    calls::reset_signals();
    calls::set_signal_mask(0);
    Ok(())
}

/// When memory is short, the kernel is to end the command, not the helper.
fn prefer_for_oom() {
    if let Ok(fd) = calls::open(c"/proc/self/oom_score_adj", O_WRONLY) {
        let _ = calls::write(fd, b"100");
        calls::close(fd);
    }
}

fn enter(command: &Command<'_>) -> Result<()> {
    if command.make_directory {
        make_directories(command.directory.to_bytes())?;
    }
    calls::change_directory(command.directory).map(|_| ())
}

fn become_user(user: Option<&User<'_>>) -> Result<()> {
    let Some(user) = user else {
        // Root has no groups of who started the helper.
        let _ = calls::set_groups(&[]);
        return Ok(());
    };
    let groups = user.groups.items();
    match calls::set_groups(groups) {
        // Of groups that do not exist in the user namespace, none can be had.
        Err(EINVAL) => calls::set_groups(&[])?,
        other => other?,
    };
    calls::set_ids(user.uid, user.gid)?;
    Ok(())
}
