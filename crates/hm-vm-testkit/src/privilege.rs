//! What tests need of the machine and of the user that runs them.

use std::path::PathBuf;

use crate::skip::Skip;

/// Needs root.
///
/// # Errors
///
/// A [`Skip`] for an ordinary user.
pub fn need_root() -> Result<(), Skip> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(Skip::new("needs root: run the tests with sudo"))
    }
}

/// Needs an ordinary user.
///
/// # Errors
///
/// A [`Skip`] for root.
pub fn need_ordinary_user() -> Result<(), Skip> {
    if rustix::process::geteuid().is_root() {
        Err(Skip::new("needs an ordinary user"))
    } else {
        Ok(())
    }
}

/// Needs a program on `PATH`, and tells where it is.
///
/// # Errors
///
/// A [`Skip`] when it is not installed.
pub fn need_program(name: &str) -> Result<PathBuf, Skip> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        // Ordinary users of Debian lack these, and can nevertheless run much of what is there.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            Skip::new(format!(
                "needs the program {name}: run scripts/test as root once"
            ))
        })
}
