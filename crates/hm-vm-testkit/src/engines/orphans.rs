//! What an engine leaves when it is killed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Ends the processes that name `root` in their command line (shims of containers, monitors of them), and removes the control groups
/// and the runtime's notes of the containers that have a directory in `containers`.
pub(super) fn end_orphans(root: &Path, containers: &Path) {
    let root = root.as_os_str().as_encoded_bytes();
    for pid in users_of(root) {
        let _ = kill_process(pid, Signal::KILL);
    }
    for _ in 0..200 {
        if users_of(root).is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let Ok(entries) = fs::read_dir(containers) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Beside the containers there are files about them.
        if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            remove_groups(Path::new("/sys/fs/cgroup"), &name, 4);
            let _ = fs::remove_dir_all(Path::new("/run/runc").join(&name));
        }
    }
}

fn users_of(root: &[u8]) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let processes = entries.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let uses = command.windows(root.len()).any(|part| part == root);
        uses.then(|| Pid::from_raw(pid)).flatten()
    });
    let own = rustix::process::getpid();
    processes.filter(|pid| *pid != own).collect()
}

/// Removes the control groups of a container below `directory`.
fn remove_groups(directory: &Path, container: &str, depth: usize) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if depth > 0 {
            remove_groups(&entry.path(), container, depth - 1);
        }
        if entry.file_name().to_string_lossy().contains(container) {
            // Only an empty one goes.
            let _ = fs::remove_dir(entry.path());
        }
    }
}
