//! Covers over what tells about the host beyond the VM.

use std::path::Path;
use std::sync::OnceLock;

use hm_vm_sys::launch::Op;

use crate::plan::{bind, c, cover, flag};

/// As Docker covers them.
const COVERED_FILES: [&str; 6] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/interrupts",
];
const COVERED_DIRECTORIES: [&str; 5] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The covers, for what this kernel has: looked up once, as that does not change.
pub(crate) fn covers() -> &'static [Op] {
    static COVERS: OnceLock<Vec<Op>> = OnceLock::new();
    COVERS.get_or_init(make_covers)
}

fn make_covers() -> Vec<Op> {
    const EMPTY: &str = "/dev/.empty";
    let mut ops = vec![Op::MakeDirectory {
        path: c(EMPTY),
        mode: 0o000,
    }];
    // What this kernel does not have needs no cover.
    let present = |path: &&str| Path::new(path).symlink_metadata().is_ok();
    for path in COVERED_FILES.into_iter().filter(present) {
        ops.push(cover("dev/null", path));
    }
    for path in COVERED_DIRECTORIES.into_iter().filter(present) {
        ops.push(cover(EMPTY, path));
    }
    let plain = flag::NOSUID | flag::NODEV | flag::NOEXEC;
    for path in READ_ONLY.into_iter().filter(present) {
        ops.push(bind(path, path, 0));
        ops.push(bind(path, path, flag::REMOUNT | flag::RDONLY | plain));
    }
    ops
}
