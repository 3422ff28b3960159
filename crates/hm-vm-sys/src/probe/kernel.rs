//! The kernel's version and settings.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use super::Fact;

/// Major and minor version, from text such as `6.18.44-generic`.
pub(super) fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The running kernel's release, and its version if it can be read from that.
pub(super) fn release() -> (String, Option<(u32, u32)>) {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let version = parse_version(&release);
    (release, version)
}

pub(super) fn version() -> Fact {
    let name = "kernel";
    let (release, version) = release();
    match version {
        Some(version) if version < (5, 11) => Fact::missing(
            name,
            format!("Linux {release}; overlays in user namespaces need 5.11"),
            "upgrade the kernel to 5.12 or later",
        ),
        Some(version) if version < (5, 12) => Fact::degraded(
            name,
            format!("Linux {release}; idmapped mounts need 5.12"),
            "upgrade the kernel to 5.12 or later",
        ),
        _ => Fact::ok(name, format!("Linux {release}")),
    }
}

fn setting(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Makes one, with a mount namespace, and changes a mount in it: where AppArmor restricts user
/// namespaces, making one succeeds, but it gives no rights.
pub(super) fn user_namespaces() -> Fact {
    let name = "user namespaces";
    let Err(error) = try_namespaces() else {
        return Fact::ok(name, "can be made, and give rights");
    };
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1)
        && !rustix::process::geteuid().is_root()
    {
        let fix = "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or only for this \
            program: printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile hmvm \
            @{HOME}/.cargo/bin/hmvm flags=(unconfined) { userns, }\\n' | sudo tee \
            /etc/apparmor.d/hmvm && sudo apparmor_parser -r /etc/apparmor.d/hmvm";
        return Fact::missing(
            name,
            format!("AppArmor takes their rights away: {error}"),
            fix,
        );
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        let fix = "sudo sysctl kernel.unprivileged_userns_clone=1";
        return Fact::missing(name, "only root may make them", fix);
    }
    if setting("/proc/sys/user/max_user_namespaces") == Some(0) {
        let fix = "sudo sysctl user.max_user_namespaces=15000";
        return Fact::missing(name, "none are allowed", fix);
    }
    Fact::missing(
        name,
        format!("making one failed: {error}"),
        "in a container, allow it: docker run --security-opt seccomp=unconfined \
         --security-opt apparmor=unconfined",
    )
}

fn try_namespaces() -> io::Result<()> {
    let mut command = Command::new("true");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: needed to try in a process of its own. The closure makes two system calls on
    // constants; neither allocates nor locks, which is what is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            if libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) != 0 {
                return Err(io::Error::last_os_error());
            }
            let none = std::ptr::null();
            let flags = libc::MS_REC | libc::MS_PRIVATE;
            if libc::mount(none, c"/".as_ptr(), none, flags, std::ptr::null()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.spawn()?.wait().map(drop)
}

pub(super) fn seccomp() -> Fact {
    let name = "seccomp";
    let fix = "use a kernel with CONFIG_SECCOMP_FILTER";
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    match (actions, crate::seccomp::default_filter()) {
        (Ok(actions), Ok(filter)) if actions.split(' ').any(|word| word == "errno") => Fact::ok(
            name,
            format!("filter of {} instructions", filter.as_raw().len()),
        ),
        (_, Err(error)) => Fact::missing(name, error.to_string(), "use x86-64 or aarch64"),
        _ => Fact::missing(name, "this kernel has no system-call filters", fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases_of_all_kinds() {
        assert_eq!(parse_version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(parse_version("5.4.0-100-generic"), Some((5, 4)));
        assert_eq!(parse_version("5.10-rc1"), Some((5, 10)));
        assert_eq!(parse_version("unknown"), None);
    }
}
