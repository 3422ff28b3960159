//! Limits, and the network.

use super::Fact;
use crate::cgroup::CgroupManager;
use crate::disk::LimitedDisk;
use crate::pasta::Pasta;

pub(super) fn cgroups() -> Vec<Fact> {
    let manager = match CgroupManager::detect("doctor", "doctor") {
        Ok(manager) => manager,
        Err(e) => {
            return vec![Fact::missing(
                "limits of processor, memory, processes",
                e.reason,
                e.fix,
            )];
        }
    };
    let place = manager.describe();
    let support = manager.support().clone();
    [
        ("limit of processors", support.cpus),
        ("limit of memory", support.memory),
        ("limit of processes", support.pids),
    ]
    .into_iter()
    .map(|(name, support)| match support {
        Ok(()) => Fact::ok(name, place.clone()),
        Err(text) => {
            let (reason, fix) = text.split_once("; ").unwrap_or((&text, "run as root"));
            Fact::missing(name, reason, fix)
        }
    })
    .collect()
}

pub(super) fn disk_limit() -> Fact {
    let name = "limit of disk space";
    match LimitedDisk::available() {
        Ok(()) => Fact::ok(name, "ext4 on a loop device"),
        Err(e) => Fact::missing(name, e.reason, e.fix),
    }
}

pub(super) fn pasta() -> Fact {
    let name = "outbound network";
    let Some(pasta) = Pasta::find() else {
        let fix = "sudo apt-get install passt (elsewhere: the package passt)";
        return Fact::missing(name, "pasta is not installed", fix);
    };
    if !Pasta::device_is_usable() {
        return Fact::missing(
            name,
            "/dev/net/tun is not there, or not for this user, and pasta needs it",
            "sudo modprobe tun; sudo chmod 666 /dev/net/tun",
        );
    }
    let version = pasta.version().unwrap_or_else(|| "pasta".into());
    Fact::ok(name, format!("{version} at {}", pasta.program().display()))
}
