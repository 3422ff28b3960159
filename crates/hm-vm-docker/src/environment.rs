//! The only place of this crate that reads the environment. Everything else is given what it needs.

use std::ffi::OsString;

use hm_vm_oci::CredentialFiles;

/// A variable of this process.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// As [`variable`], and what a login would set where no login started this process.
pub(crate) fn variable_of_login(name: &str) -> Option<OsString> {
    variable(name).or_else(|| {
        let user = rustix::process::getuid().as_raw();
        (name == "XDG_RUNTIME_DIR").then(|| format!("/run/user/{user}").into())
    })
}

/// Where names and passwords for registries are: where `docker login` and `podman login` leave them.
pub(crate) fn credential_files() -> CredentialFiles {
    CredentialFiles::standard(variable_of_login)
}
